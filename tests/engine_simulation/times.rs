//! Clocks that jump, machines that sleep, and a wall clock that was never right: nothing is revoked
//! early, and the fleet is never rotated at once. What is early is judged by true time, at every request.

use rotad::rotation::Happened;

use crate::engine::matrix::Step;
use crate::engine::play::{DAILY, Play};
use crate::failures::due_within;
use crate::simulator::world::{DAY, HOUR, MINUTE, Ms, SECOND};

const FLEET: usize = 60;
const YEAR: Ms = 365 * DAY;

/// A fleet whose grace periods are in progress: rotated over the last day.
fn rotating() -> Play {
    let mut play = Play::new(FLEET, &DAILY);
    play.pass(2 * DAY + 5 * HOUR);
    play
}

/// The most of the fleet that may rotate within ten minutes of an ordinary day, and as many again.
const IN_TEN_MINUTES: u64 = 4;

/// Every credential has rotated about daily, and every old token was revoked, whatever the clocks did.
fn went_on(play: &mut Play, what: &str) {
    let before: Vec<usize> = (0..FLEET).map(|credential| play.happened(credential, Happened::Promoted)).collect();
    play.pass(2 * DAY + HOUR);
    for (credential, before) in before.into_iter().enumerate() {
        let rotated = play.happened(credential, Happened::Promoted) - before;
        assert!((1..=3).contains(&rotated), "{what}: c{credential} rotated {rotated} times in two days");
        assert!(play.live(credential).len() <= 3, "{what}: {:?} of c{credential} live", play.live(credential));
    }
}

#[test]
fn no_jump_of_a_clock_revokes_early_or_rotates_the_fleet() {
    for jump in [50 * SECOND, 70 * SECOND, HOUR, YEAR] {
        for jump in [jump, -jump] {
            let what = format!("a jump of {} s", jump / SECOND);
            let mut play = rotating();
            let before = play.rotations();
            play.world().time.set_offset(jump);
            play.pass(10 * MINUTE);
            let rotated = play.rotations() - before;
            assert!(rotated <= IN_TEN_MINUTES, "{what}: {rotated} of {FLEET} rotated within ten minutes");
            // A person sets it right in the evening.
            play.pass(6 * HOUR);
            play.world().time.set_offset(0);
            let before = play.rotations();
            play.pass(10 * MINUTE);
            let made_up = play.rotations() - before;
            let frozen = jump.abs() > MINUTE;
            let most = if frozen { FLEET as u64 / 3 } else { IN_TEN_MINUTES };
            assert!(made_up <= most, "{what}: {made_up} of {FLEET} rotated within ten minutes after it was set right");
            went_on(&mut play, &what);
        }
    }
}

#[test]
fn a_process_that_starts_with_a_wrong_clock_waits_for_the_api() {
    for skew in [70 * SECOND, HOUR, YEAR, -70 * SECOND, -HOUR, -YEAR] {
        let what = format!("a skew of {} s at the start", skew / SECOND);
        let mut play = rotating();
        let (before, revoked) = (play.rotations(), play.revocations());
        play.director.held_down = true;
        play.world().crash();
        play.world().time.set_offset(skew);
        play.down_for(5 * SECOND);
        play.pass(3 * HOUR);
        assert_eq!(play.revocations(), revoked, "{what}: revoked while the clocks disagree");
        assert!(play.rotations() - before <= IN_TEN_MINUTES, "{what}: {} rotated", play.rotations() - before);
        play.world().time.set_offset(0);
        play.pass(MINUTE);
        went_on(&mut play, &what);
    }
}

#[test]
fn a_suspend_is_caught_up_with_under_the_limits() {
    for period in [MINUTE, HOUR, 3 * DAY] {
        let what = format!("a suspend of {} min", period / MINUTE);
        let mut play = rotating();
        let before = play.rotations();
        play.world().time.suspend(period);
        play.pass(20 * MINUTE);
        let rotated = play.rotations() - before;
        // Each is made up for once, whatever was due meanwhile, and some are due in these minutes.
        let due = due_within(&play, play.now() - 20 * MINUTE, play.now());
        assert!(rotated <= (FLEET + due) as u64, "{what}: {rotated} rotations of {FLEET} credentials");
        let (most, revoked) = play.world().blast.most();
        assert!(most <= 10 && revoked <= 10, "{what}: {most} rotations and {revoked} revocations within a minute");
        if period < HOUR {
            assert!(rotated <= IN_TEN_MINUTES, "{what}: {rotated}");
        }
        went_on(&mut play, &what);
    }
}

#[test]
fn a_minute_that_is_believed_gives_no_second_minutes_permits() {
    // A wall clock that is set a minute ahead, again and again, is followed; the limits are not.
    let mut play = Play::with(80, &DAILY, |setup| (setup.rotations_per_minute, setup.revocations_per_minute) = (3, 3));
    for step in 1..=20 {
        play.pass(2 * SECOND);
        play.world().time.set_offset(step * 50 * SECOND);
    }
    let (most, _) = play.world().blast.most();
    assert!(most <= 3, "{most} rotations within a minute");
    assert!(play.rotations() > 0);
}

#[test]
fn a_clock_set_back_during_a_suspend_makes_no_read_back_younger() {
    let mut play = Play::new(1, &DAILY);
    play.pass(15 * HOUR);
    // By less than a minute: it is believed.
    play.world().time.set_offset(59 * SECOND);
    play.pass_to_a_rotation(0);
    play.pass(12 * HOUR - MINUTE);
    let revoked = play.revocations();
    for _ in 0..10 * MINUTE {
        play.pass(1);
        if play.world().actors[0].step == Step::IntendRevocation {
            play.world().time.suspend(64 * SECOND);
            play.world().time.set_offset(0);
            // The read-backs are a minute old now, and five seconds by the wall clock.
            play.pass(5 * MINUTE);
            let (failed, intended) = (play.happened(0, Happened::RevokeFailed), play.revocations() - revoked);
            assert_eq!((failed, intended, play.live(0).len()), (1, 2, 1), "it was read again, and revoked then");
            return;
        }
    }
    panic!("nothing was revoked");
}

#[test]
fn a_clock_that_is_ahead_and_believed_rotates_once_for_each_due_time() {
    for ahead in [59 * SECOND, SECOND, -59 * SECOND] {
        let mut play = Play::new(5, &DAILY);
        play.pass(15 * HOUR);
        play.world().time.set_offset(ahead);
        let before = play.rotations();
        play.pass(3 * DAY);
        let rotated = play.rotations() - before;
        assert_eq!(rotated, 3 * 5, "by a clock that is {} s ahead", ahead / SECOND);
    }
}
