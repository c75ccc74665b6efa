//! The failures seen in the field, F1 to F31, each as a scenario or as a line that says why it can't occur here.

use jiff::SignedDuration;
use rotad::rotation::{Blocked, Happened, InstallationId, RotationId, Schedule, TokenName};

use crate::engine::matrix::{Fault, Step};
use crate::engine::play::{ALWAYS, DAILY, Play};
use crate::engine::setup::Setup;
use crate::engine::world::PLANTED;
use crate::simulator::setup::account;
use crate::simulator::sim::NEVER;
use crate::simulator::world::{Author, Content, DAY, FOREIGN, HOUR, MINUTE, Ms, SECOND, Token, ms_of, stamp};

/// How a failure is answered.
#[derive(Debug, Clone, Copy)]
pub enum Shown {
    /// A test of this file.
    Here(&'static str),
    /// A test of this file, and one that stands elsewhere: file and name.
    HereAnd(&'static str, &'static str, &'static str),
    /// It can't occur, or can't be seen by rotad; why, and what is done about it.
    Cannot(&'static str),
}

/// Every failure of the field, in order.
pub const FAILURES: [(u8, &str, Shown); 31] = {
    use Shown::*;
    [
        (
            1,
            "a new token in the wrong place, the old one deleted",
            Here("f01_nothing_is_revoked_while_a_place_lacks_the_new_token"),
        ),
        (2, "the old token is revoked while caches live", Here("f02_the_old_token_lives_through_the_grace_period")),
        (3, "the old token's id is lost", Here("f03_a_token_whose_id_was_lost_is_found_and_revoked")),
        (4, "a stuck rotation blocks all later ones", Here("f04_a_rotation_that_is_stuck_blocks_no_later_one")),
        (5, "reads lag behind writes", Here("f05_a_store_that_lags_gets_one_write_for_each_rotation")),
        (6, "one of many places is not written", Here("f06_a_place_that_was_down_gets_the_same_token")),
        (7, "each retry mints a token", Here("f07_retries_mint_nothing_and_lost_tokens_are_bounded")),
        (8, "a lost answer to a one-shot call", Here("f08_a_lost_answer_costs_one_token_which_is_revoked")),
        (9, "a repeated request kills the new token", Here("f09_no_rotation_is_asked_for_twice")),
        (10, "orphans after a crash", Here("f10_an_orphan_of_a_crash_is_revoked")),
        (11, "cleaning up needs what is gone", Here("f11_an_account_that_is_gone_is_told_and_nothing_hangs_on_it")),
        (12, "a restart rotates early or everything", Here("f12_a_restart_rotates_nothing_early")),
        (13, "a failover stops rotation silently", Here("f13_the_next_process_takes_up_all_work")),
        (14, "a retry loop without limit", Here("f14_an_outage_is_asked_about_seldom")),
        (15, "giving up silently", Here("f15_after_an_outage_everything_is_made_up_for")),
        (16, "a herd", Here("f16_a_fleet_of_one_schedule_is_spread_out")),
        (17, "storms of 429", Here("f17_a_retry_after_is_waited_out")),
        (18, "a storm of revocations after a restart", Here("f18_revocations_that_piled_up_keep_to_the_limit")),
        (19, "paired credentials rotated together", Here("f19_two_credentials_of_one_account_never_touch_each_other")),
        (20, "an old backup revokes what is live", Here("f20_a_restored_journal_revokes_nothing_that_is_served")),
        (
            21,
            "consumers never read again",
            Cannot(
                "rotad can't see what a consumer holds in memory: the grace period and the old token's life bound what it may hold, \
                 and the configuration warns of a grace period shorter than known caches",
            ),
        ),
        (22, "the admin credential expired", Here("f22_an_admin_token_that_expired_breaks_nothing_and_is_recovered_from")),
        (23, "a suspend is missed", Here("f23_a_suspend_is_noticed_and_made_up_for")),
        (
            24,
            "a clock that steps back",
            HereAnd(
                "f24_a_clock_that_steps_back_makes_no_loop",
                "tests/engine_simulation/times.rs",
                "no_jump_of_a_clock_revokes_early_or_rotates_the_fleet",
            ),
        ),
        (
            25,
            "daylight saving skips or repeats",
            HereAnd(
                "f25_a_nightly_rotation_comes_once_a_night_all_year",
                "tests/schedule.rs",
                "around_every_transition_due_times_are_those_of_the_definition",
            ),
        ),
        (26, "health is green while it is broken", Here("f26_what_is_broken_shows_and_what_is_mended_does_not")),
        (27, "foreign tokens are deleted", Here("f27_tokens_of_others_are_never_touched")),
        (28, "two writers fight over one place", Here("f28_a_place_or_a_name_that_is_anothers_is_left_alone")),
        (29, "a quota of versions is used up", Here("f29_a_place_that_is_changed_again_and_again_is_written_hourly_at_most")),
        (
            30,
            "secrets in errors, backups and files",
            HereAnd("f30_no_value_gets_into_journal_history_or_status", "src/secret.rs", "debug_shows_nothing_of_the_value"),
        ),
        (31, "a rotation before the first value", Here("f31_a_first_start_issues_once_and_takes_nothing_over")),
    ]
};

#[test]
fn every_failure_of_the_field_is_answered() {
    let own = include_str!("failures.rs");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let stands = |text: &str, test: &str| assert!(text.contains(&format!("fn {test}(")), "there is no test `{test}`");
    let elsewhere = |file: &str, test: &str| stands(&std::fs::read_to_string(root.join(file)).unwrap(), test);
    for (number, (given, what, shown)) in FAILURES.iter().enumerate() {
        assert_eq!(usize::from(*given), number + 1);
        match shown {
            Shown::Here(test) => {
                assert!(test.starts_with(&format!("f{given:02}_")), "{test}");
                stands(own, test);
                println!("F{given}: {what}: {test}");
            }
            Shown::HereAnd(test, file, other) => {
                stands(own, test);
                elsewhere(file, other);
                println!("F{given}: {what}: {test}, and {file}: {other}");
            }
            Shown::Cannot(why) => {
                assert!(why.len() > 40);
                println!("F{given}: {what}: {why}");
            }
        }
    }
}

/// A world whose first tokens are delivered, and what was due soon after its begin is over.
fn settled(size: usize) -> Play {
    settled_with(size, |_| {})
}

fn settled_with(size: usize, change: impl FnOnce(&mut Setup)) -> Play {
    let mut play = Play::with(size, &DAILY, change);
    play.pass(15 * HOUR);
    for credential in 0..size {
        assert!(play.served(credential).iter().all(Option::is_some), "c{credential} has no first token");
    }
    play
}

/// The place of a credential's delivery with this number.
fn place_of(play: &Play, credential: usize, number: usize) -> usize {
    play.world().actors[credential].places[number]
}

#[test]
fn f01_nothing_is_revoked_while_a_place_lacks_the_new_token() {
    let mut play = settled(1);
    let old = play.served(0)[0].unwrap();
    let (broken, revoked) = (place_of(&play, 0, 1), play.revocations());
    play.pass_to_before_a_rotation(0);
    play.world().places[broken].unwritable_until = Ms::MAX;
    play.pass(3 * DAY);
    let served = play.served(0);
    assert_ne!(served[0], Some(old), "the place that works has the new token");
    assert_eq!(served[1], Some(old), "the other one serves the old token still");
    assert!(play.is_live(old) && play.revocations() == revoked);
    play.world().places[broken].unwritable_until = 0;
    play.pass(HOUR);
    let served = play.served(0);
    assert!(served[0] == served[1] && served[1] != Some(old), "the newest token came to both: {served:?}");
    assert!(play.is_live(old), "its grace period begins only now");
    play.pass(14 * HOUR);
    assert!(!play.is_live(old));
}

#[test]
fn f02_the_old_token_lives_through_the_grace_period() {
    let mut play = settled(1);
    let old = play.served(0)[0].unwrap();
    play.pass_to_a_rotation(0);
    play.pass(12 * HOUR - 5 * MINUTE);
    assert!(play.is_live(old), "consumers may hold it for the whole grace period");
    play.pass(15 * MINUTE);
    assert!(!play.is_live(old), "and no longer");
}

#[test]
fn f03_a_token_whose_id_was_lost_is_found_and_revoked() {
    let mut play = settled(1);
    play.next(Step::Issue, 0, Fault::CrashAfter, 1);
    play.pass_to_a_rotation(0);
    play.pass(2 * HOUR);
    assert_eq!((play.happened(0, Happened::Lost), play.happened(0, Happened::Found)), (1, 1));
    assert_eq!(play.live(0).len(), 3, "the old one, the one whose id was lost, and its successor");
    play.pass(20 * HOUR);
    assert_eq!(play.live(0).len(), 1);
}

#[test]
fn f04_a_rotation_that_is_stuck_blocks_no_later_one() {
    let mut play = settled(1);
    play.next(Step::Issue, 0, Fault::TimedOutNotDone, 1);
    play.next(Step::Write, 0, Fault::TimedOutNotDone, 2);
    let before = play.served(0)[0];
    play.pass(4 * DAY);
    assert!(play.happened(0, Happened::Promoted) >= 4, "it rotated daily");
    assert_ne!(play.served(0)[0], before);
}

#[test]
fn f05_a_store_that_lags_gets_one_write_for_each_rotation() {
    let mut play = Play::with(3, &DAILY, |setup| setup.places.iter_mut().for_each(|place| place.lag = 55 * SECOND));
    play.pass(5 * DAY);
    for credential in 0..3 {
        let rotations = play.happened(credential, Happened::Intended);
        assert!((5..=6).contains(&rotations), "{rotations}");
        assert_eq!(play.happened(credential, Happened::Attempted), 2 * rotations, "each place was written once");
        assert_eq!(play.happened(credential, Happened::RolledBack), 0, "lag is no roll-back");
    }
}

#[test]
fn f06_a_place_that_was_down_gets_the_same_token() {
    let mut play = settled(1);
    play.pass_to_before_a_rotation(0);
    let broken = place_of(&play, 0, 0);
    let until = play.now() + 6 * HOUR;
    play.world().places[broken].unwritable_until = until;
    play.pass(5 * HOUR);
    let served = play.served(0);
    assert_ne!(served[0], served[1], "one place is down, the other has the new token");
    let rotations = play.rotations();
    play.pass(2 * HOUR);
    assert_eq!(play.served(0), [served[1], served[1]]);
    assert_eq!(play.rotations(), rotations, "nothing was minted for it");
}

#[test]
fn f07_retries_mint_nothing_and_lost_tokens_are_bounded() {
    let mut play = settled(1);
    play.pass_to_before_a_rotation(0);
    let broken = place_of(&play, 0, 1);
    play.world().places[broken].unwritable_until = Ms::MAX;
    let before = play.rotations();
    play.pass(5 * DAY);
    assert_eq!(play.rotations() - before, 1, "one token is brought to the broken place again and again");
    play.world().places[broken].unwritable_until = 0;
    play.pass(2 * DAY);
    play.next(Step::Issue, 0, Fault::TimedOutDone, ALWAYS);
    play.pass(2 * DAY);
    assert!(play.live(0).len() <= 33, "{} tokens live", play.live(0).len());
    play.world().script.clear();
    play.pass(9 * DAY);
    assert!(play.live(0).len() <= 2, "{} tokens are left", play.live(0).len());
}

#[test]
fn f08_a_lost_answer_costs_one_token_which_is_revoked() {
    let mut play = settled(1);
    play.next(Step::Issue, 0, Fault::TimedOutDone, 1);
    play.pass_to_a_rotation(0);
    play.pass(HOUR);
    assert_eq!(play.live(0).len(), 3);
    play.pass(20 * HOUR);
    assert_eq!((play.live(0).len(), play.happened(0, Happened::Found)), (1, 1));
}

#[test]
fn f09_no_rotation_is_asked_for_twice() {
    // That an id is asked for twice is judged at every request (S5).
    let mut play = settled(1);
    play.next(Step::Issue, 0, Fault::TimedOutNotDone, 2);
    play.next(Step::Issue, 0, Fault::DoneLate, 2);
    let before = play.rotations();
    play.pass(3 * DAY);
    assert!(play.rotations() >= before + 4 + 2, "each attempt had an id of its own");
}

#[test]
fn f10_an_orphan_of_a_crash_is_revoked() {
    let mut play = settled(1);
    play.next(Step::Attempt, 0, Fault::CrashBefore, 1);
    play.pass_to_a_rotation(0);
    play.pass(2 * HOUR);
    assert_eq!(play.happened(0, Happened::Lost) + play.happened(0, Happened::Orphaned), 1);
    let served = play.served(0);
    play.pass(20 * HOUR);
    assert_eq!(play.live(0), [served[0].unwrap()], "the orphan is gone");
}

#[test]
fn f11_an_account_that_is_gone_is_told_and_nothing_hangs_on_it() {
    let mut play = settled(2);
    let account = 0;
    play.world().accounts_gone.insert(account);
    play.pass(2 * DAY);
    assert_eq!(play.blocked(0), Some(Blocked::NoSuchAccount));
    assert_eq!(play.blocked(1), None, "the other credential goes on");
    assert!(play.served(0).iter().all(Option::is_some), "its places stay as they are");
    play.world().accounts_gone.clear();
    play.pass(DAY);
    assert_eq!(play.blocked(0), None);
    // Nor does a credential that is let go hold anything up.
    play.world().actors[1].configured = false;
    play.world().signal(crate::engine::world::Signal::Reload);
    let revoked = play.revocations();
    play.pass(3 * DAY);
    assert!(play.revocations() > revoked, "the one that is configured still cleans up");
}

/// How many rotations of the fleet are due by schedule in a span of time.
pub fn due_within(play: &Play, from: Ms, to: Ms) -> usize {
    let world = play.world();
    let due = |schedule: &Schedule| {
        let (mut count, mut at) = (0, stamp(from));
        while let Some(next) = schedule.next_after(at).filter(|next| ms_of(*next) <= to) {
            (count, at) = (count + 1, next);
        }
        count
    };
    world.actors.iter().map(|actor| due(&actor.policy.schedule)).sum()
}

#[test]
fn f12_a_restart_rotates_nothing_early() {
    let mut play = settled(100);
    play.pass(2 * DAY);
    let (from, before) = (play.now(), play.rotations());
    for _ in 0..12 {
        play.restart();
        play.pass(5 * MINUTE);
    }
    let (rotated, due) = (play.rotations() - before, due_within(&play, from, play.now()));
    assert!(rotated as usize <= due + 1, "{rotated} of 100 rotated in an hour of restarts, {due} were due");
}

#[test]
fn f13_the_next_process_takes_up_all_work() {
    // There is one process at a time: what takes over is the next one, however the last one ended.
    let mut play = settled(40);
    play.pass(DAY);
    play.down_for(20 * HOUR);
    let began = play.now();
    play.pass(HOUR);
    for credential in 0..40 {
        assert!(play.state(credential).swept_at.is_some_and(|at| ms_of(at) >= began), "c{credential} was not looked at");
    }
    play.pass(7 * DAY);
}

#[test]
fn f14_an_outage_is_asked_about_seldom() {
    let mut play = settled(1);
    play.pass_to_before_a_rotation(0);
    let from = play.now();
    play.world().api_down_until = from + 6 * HOUR;
    play.world().calls.clear();
    play.pass(6 * HOUR);
    let asked = play.world().calls.iter().filter(|(_, _, step)| step.is_asked_of_the_api()).count();
    assert!(asked > 6 && asked < 6 * 60, "the API was asked {asked} times in 6 hours of outage");
}

#[test]
fn f15_after_an_outage_everything_is_made_up_for() {
    let mut play = settled(20);
    let until = play.now() + 3 * DAY;
    play.world().api_down_until = until;
    play.pass(3 * DAY);
    play.pass(80 * MINUTE);
    for credential in 0..20 {
        let newest = play.served(credential)[0].unwrap();
        assert!(play.world().tokens[newest].created > until, "c{credential} did not rotate after the outage");
    }
}

#[test]
fn f16_a_fleet_of_one_schedule_is_spread_out() {
    let mut play = settled(200);
    play.pass(DAY);
    let mut most = 0;
    for _ in 0..24 {
        let before = play.rotations();
        play.pass(HOUR);
        most = most.max(play.rotations() - before);
    }
    assert!(most <= 25, "{most} of 200 rotated in one hour");
    let (minute, _) = play.world().blast.most();
    assert!(minute <= 10, "{minute} rotated within a minute");
}

#[test]
fn f17_a_retry_after_is_waited_out() {
    let mut play = settled(1);
    play.pass_to_before_a_rotation(0);
    play.next(Step::List, 0, Fault::ThrottledUntil, 3);
    play.next(Step::Issue, 0, Fault::ThrottledUntil, 3);
    play.world().calls.clear();
    play.pass(2 * HOUR);
    assert!(play.world().script.iter().all(|(_, _, _, left)| *left == 0), "the throttled calls were made");
    for step in [Step::List, Step::Issue] {
        let world = play.world();
        let calls: Vec<Ms> = world.calls.iter().filter(|(_, _, at)| *at == step).map(|(at, _, _)| *at).collect();
        let gaps: Vec<Ms> = calls.windows(2).take(3).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 45 * SECOND), "{step:?} came again after {gaps:?} ms");
    }
}

#[test]
fn f18_revocations_that_piled_up_keep_to_the_limit() {
    let mut play = settled(100);
    play.next(Step::Revoke, None, Fault::Unavailable, ALWAYS);
    play.pass(2 * DAY);
    let live: usize = (0..100).map(|credential| play.live(credential).len()).sum();
    assert!(live >= 200, "{live} tokens live");
    play.world().script.clear();
    play.restart();
    play.pass(2 * HOUR);
    let (_, most) = play.world().blast.most();
    assert!(most <= 10, "{most} revocations within a minute");
    let left: usize = (0..100).map(|credential| play.live(credential).len()).sum();
    assert!(left <= live - 80, "{left} of {live} tokens are left");
}

#[test]
fn f19_two_credentials_of_one_account_never_touch_each_other() {
    let mut play = Play::with(2, &DAILY, |setup| {
        for plan in &mut setup.plans {
            std::sync::Arc::make_mut(&mut plan.policy).account = account(0);
        }
    });
    play.pass(10 * DAY);
    // That each place always serves a live token of its own credential is judged all the time.
    for credential in 0..2 {
        assert!(play.happened(credential, Happened::Revoked) >= 8);
        let owner = play.world().actors[credential].policy.owner.clone();
        for token in play.served(credential) {
            assert_eq!(play.world().tokens[token.unwrap()].name.owner, owner);
        }
    }
    let phases: Vec<_> = (0..2).map(|credential| play.world().actors[credential].policy.schedule.next_after(stamp(0))).collect();
    assert_ne!(phases[0], phases[1], "they are not due together");
}

#[test]
fn f20_a_restored_journal_revokes_nothing_that_is_served() {
    let mut play = settled(10);
    play.pass(DAY);
    play.world().take_snapshot();
    play.pass(3 * DAY);
    play.outside(Fault::JournalRestored, 0);
    play.pass(5 * DAY);
    for credential in 0..10 {
        assert_eq!(play.blocked(credential), None);
        assert!(play.happened(credential, Happened::Rebuilt) > 0, "c{credential} was not rebuilt");
    }
    play.outside(Fault::JournalLost, 0);
    play.pass(5 * DAY);
    assert!((0..10).all(|credential| play.blocked(credential).is_none()));
}

#[test]
fn f22_an_admin_token_that_expired_breaks_nothing_and_is_recovered_from() {
    let mut play = settled(10);
    for step in [Step::List, Step::Issue, Step::Revoke, Step::Verify] {
        play.next(step, None, Fault::Unauthorized, ALWAYS);
    }
    let (rotations, before) = (play.rotations(), play.served(3));
    play.pass(3 * DAY);
    assert_eq!(play.served(3), before, "consumers keep what they have");
    assert_eq!(play.rotations(), rotations, "a token is asked for only where a list was had");
    play.world().script.clear();
    let fixed = play.now();
    play.pass(80 * MINUTE);
    for credential in 0..10 {
        let newest = play.served(credential)[0].unwrap();
        assert!(play.world().tokens[newest].created > fixed, "c{credential} did not rotate with the new admin token");
    }
}

#[test]
fn f23_a_suspend_is_noticed_and_made_up_for() {
    let mut play = settled(30);
    play.pass(DAY);
    let before = play.rotations();
    play.world().time.suspend(26 * HOUR);
    play.pass(10 * MINUTE);
    let made_up = play.rotations() - before;
    assert!((30..=34).contains(&made_up), "each was due once meanwhile: {made_up}");
    let (most, _) = play.world().blast.most();
    assert!(most <= 10, "{most} rotations within a minute");
}

#[test]
fn f24_a_clock_that_steps_back_makes_no_loop() {
    let mut play = settled(5);
    play.pass_to_a_rotation(0);
    play.world().time.set_offset(-HOUR);
    play.pass(DAY);
    play.world().time.set_offset(0);
    play.pass(2 * DAY);
    for credential in 0..5 {
        let rotations = play.happened(credential, Happened::Intended);
        assert!((3..=6).contains(&rotations), "c{credential} rotated {rotations} times in four days");
    }
}

#[test]
fn f25_a_nightly_rotation_comes_once_a_night_all_year() {
    let mut play = Play::with(1, &DAILY, |setup| {
        let policy = std::sync::Arc::make_mut(&mut setup.plans[0].policy);
        // In Berlin half past two is skipped in March and comes twice in October.
        policy.schedule = Schedule::cron("30 2 * * *", "Europe/Berlin").unwrap();
    });
    play.pass(HOUR);
    for night in 0..364 {
        let before = play.rotations();
        play.pass(DAY);
        // A day of 24 hours may hold the times of two nights where one is 23 hours long.
        let rotated = play.rotations() - before;
        assert!(rotated <= 2, "{rotated} rotations in the night {night}");
    }
    let all = play.rotations();
    assert!((364..=366).contains(&all), "{all} rotations in 364 nights");
}

#[test]
fn f26_what_is_broken_shows_and_what_is_mended_does_not() {
    let mut play = settled(3);
    let shown = |play: &Play| {
        let process = play.director.process.as_ref().unwrap();
        let _world = play.world().now;
        let snapshot = process.engine.board.snapshot(process.engine.clock.now());
        let unconfirmed: u64 = rotad::sinks::Kind::ALL.iter().map(|kind| snapshot.deliveries_unconfirmed.of(*kind)).sum();
        (unconfirmed, snapshot.blocked.of(Blocked::RolledBack), snapshot.credentials_past_deadline)
    };
    assert_eq!(play.entered(shown), (0, 0, 0));
    let broken = place_of(&play, 0, 1);
    play.pass_to_before_a_rotation(0);
    play.world().places[broken].unwritable_until = Ms::MAX;
    play.pass(HOUR);
    assert_eq!(play.entered(shown).0, 1, "the place that can't be written shows");
    play.world().places[broken].unwritable_until = 0;
    play.pass(HOUR);
    assert_eq!(play.entered(shown), (0, 0, 0), "nothing stays red");
    play.outside(Fault::RolledBack, 0);
    play.pass(8 * HOUR);
    assert_eq!(play.entered(shown).1, 1, "a roll-back shows until the next rotation");
    play.pass(2 * DAY);
    assert_eq!(play.entered(shown), (0, 0, 0));
}

#[test]
fn f27_tokens_of_others_are_never_touched() {
    let mut play = settled(1);
    let foreign = {
        let mut world = play.world();
        let own = world.actors[0].policy.owner.clone();
        let rotation = |number: u64| RotationId::mint(stamp(0), None, InstallationId(9), number << 40);
        let names = ["sim2/c0", "sim/c00", "prod/c0", "sim/c0-x"];
        let others: Vec<TokenName> = names
            .iter()
            .enumerate()
            .map(|(number, owner)| TokenName { owner: owner.parse().unwrap(), rotation: rotation(number as u64) })
            .collect();
        // One under our own name that this journal did not record, from before it.
        let unknown = TokenName { owner: own, rotation: rotation(99) };
        let token = |name: &TokenName| Token {
            name: name.clone(),
            account: 0,
            created: 0,
            expires: NEVER,
            token_type: rotad::rotation::TokenType::ReadWrite,
            ended: None,
            listed_from: 0,
            by_hand: false,
        };
        let all: Vec<TokenName> = others.into_iter().chain([unknown]).collect();
        all.iter().map(|name| world.add_token(token(name))).collect::<Vec<_>>()
    };
    play.pass(10 * DAY);
    assert!(foreign.iter().all(|token| play.is_live(*token)), "a token of somebody else was revoked");
    assert!(play.happened(0, Happened::Revoked) >= 8);
    assert_eq!((play.state(0).seen.foreign, play.state(0).seen.unknown), (4, 1));
}

#[test]
fn f28_a_place_or_a_name_that_is_anothers_is_left_alone() {
    let mut play = settled(2);
    let place = place_of(&play, 0, 1);
    let theirs = Content {
        value: Some(FOREIGN + 1),
        marker: Some(crate::simulator::world::Marker { owner: "prod/other".parse().unwrap(), pairs: Vec::new() }),
        scheduled_for_deletion: false,
    };
    let now = play.now();
    play.world().places[place].put(now, theirs, Author::Person);
    play.pass(2 * DAY);
    assert_eq!(play.blocked(0), Some(Blocked::OwnedByOther));
    assert_eq!(play.served(0)[1], Some(FOREIGN + 1), "what is another's is not written");
    play.pass(HOUR);
    let now = play.now();
    let rotation = RotationId::mint(stamp(now), None, InstallationId(9), 1);
    {
        let mut world = play.world();
        let name = TokenName { owner: world.actors[1].policy.owner.clone(), rotation };
        let token_type = world.actors[1].policy.token_type;
        world.add_token(Token {
            name,
            account: 2,
            created: now,
            expires: now + 7 * DAY,
            token_type,
            ended: None,
            listed_from: now,
            by_hand: false,
        });
    }
    play.pass(8 * HOUR);
    assert_eq!(play.blocked(1), Some(Blocked::SecondInstallation));
}

#[test]
fn f29_a_place_that_is_changed_again_and_again_is_written_hourly_at_most() {
    let mut play = settled_with(1, |setup| {
        std::sync::Arc::make_mut(&mut setup.plans[0].policy).sweep_every = SignedDuration::from_mins(15);
    });
    let (place, before) = (place_of(&play, 0, 0), play.happened(0, Happened::Attempted));
    for _ in 0..12 * 20 {
        let now = play.now();
        let changed = Content { value: Some(FOREIGN + now as usize), ..Content::default() };
        play.world().places[place].put(now, changed, Author::Person);
        play.pass(5 * MINUTE);
    }
    let writes = play.happened(0, Happened::Attempted) - before;
    // A rotation may fall in between.
    assert!(writes <= 21 + 2, "{writes} writes in 20 hours");
    assert!(writes > 10, "and it was mended: {writes} writes");
}

#[test]
fn f30_no_value_gets_into_journal_history_or_status() {
    let mut play = settled(3);
    play.next(Step::Write, None, Fault::TimedOutDone, 3);
    play.next(Step::Issue, None, Fault::TimedOutDone, 2);
    play.next(Step::Verify, None, Fault::Unavailable, 2);
    play.pass(5 * DAY);
    let world = play.world();
    let journal = format!("{:?}", world.record);
    assert!(journal.contains("c0") && !journal.contains(PLANTED), "a value is in the journal");
    drop(world);
    let shown = play.entered(|play: &Play| {
        let process = play.director.process.as_ref().unwrap();
        serde_json::to_string(&process.engine.board.snapshot(process.engine.clock.now())).unwrap()
    });
    assert!(!shown.contains(PLANTED));
}

#[test]
fn f31_a_first_start_issues_once_and_takes_nothing_over() {
    let mut play = Play::with(3, &DAILY, |setup| {
        // One place holds what somebody put there.
        setup.places[3].versions[0].content.value = Some(FOREIGN + 5);
    });
    play.pass(5 * MINUTE);
    assert_eq!(play.served(0), [Some(play.live(0)[0]); 2]);
    assert_eq!((play.live(0).len(), play.revocations()), (1, 0));
    assert_eq!(play.blocked(1), Some(Blocked::TakeOverNeeded));
    assert_eq!(play.served(1)[0], Some(FOREIGN + 5), "it is not overwritten without being told to");
    assert_eq!(play.blocked(2), None);
}
