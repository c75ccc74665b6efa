//! Every field of a state, brought into its canonical form and written down for the key.
//!
//! All are named: one that is added to the core's state does not compile until it has its place here.

use rotad::rotation::{
    Attempt, Block, Credential, Delivery, ProcessId, Rotation, Settled, Stage, Token as Recorded, TokenName, Trouble,
};

use super::canon::{Canon, LIFE_AGE};
use super::state::{Call, Flight, Journal, Process, Row, Site, State, TTL};
use crate::simulator::oracle::{Memo, Period};
use crate::simulator::world::{self, Author, Content, HOUR, MINUTE, Ms, SECOND, Token, fingerprint, token_id, token_index};

/// Grace periods are 5 minutes, lags a minute: no steady time of more than this is told apart.
const STEADY_AGE: i64 = 6 * MINUTE;
/// Older than two lists a minute apart.
const LISTS_AGE: Ms = 2 * MINUTE;
/// Mending by hand is at most hourly.
const MEND_AGE: Ms = HOUR + MINUTE;
/// Older than any token that lives, with the 15 minutes of a predecessor.
const JOURNAL_AGE: Ms = TTL + 20 * MINUTE;
/// What the oracle asks the age of.
const ORACLE_AGE: Ms = 30 * MINUTE;
/// A person's change is held against the age of the newest token.
const PERSON_AGE: Ms = 2 * TTL;

impl Canon {
    pub fn state(&mut self, state: &mut State) {
        let State { now, tokens, places, flights, sites, faults_left, takeovers_left, newcomers_left } = state;
        *now = self.now;
        self.number(*now as u64);
        self.short(usize::from(*faults_left));
        self.short(usize::from(*takeovers_left));
        self.short(usize::from(*newcomers_left));
        self.short(tokens.len());
        tokens.iter_mut().for_each(|token| self.token(token));
        for place in places {
            self.short(place.versions.len());
            for version in &mut place.versions {
                let oldest = if version.author == Author::Person { PERSON_AGE } else { 5 * MINUTE };
                self.ms(&mut version.at, oldest);
                self.ms(&mut version.since, 5 * MINUTE);
                self.short(version.number as usize);
                self.flag(version.author == Author::Us);
                self.content(&mut version.content);
            }
        }
        self.short(flights.len());
        flights.iter_mut().for_each(|flight| self.flight(flight));
        sites.iter_mut().for_each(|site| self.site(site));
    }

    fn token(&mut self, token: &mut Token) {
        let Token { name, account: _, created, expires, token_type: _, ended, listed_from: _, by_hand: _ } = token;
        self.name(name);
        self.ms(created, JOURNAL_AGE);
        self.ms(expires, SECOND);
        self.flag(ended.is_some_and(|(_, by)| by == world::Ended::ByUs));
        self.flag(ended.is_some_and(|(_, by)| by == world::Ended::ByHand));
        if let Some((at, _)) = ended {
            *at = 0;
        }
    }

    fn name(&mut self, name: &mut TokenName) {
        let TokenName { owner: _, rotation } = name;
        self.id(rotation);
    }

    fn content(&mut self, content: &mut Content) {
        let Content { value, marker, scheduled_for_deletion: _ } = content;
        self.flag(value.is_some());
        if let Some(value) = value {
            self.value(value);
        }
        self.flag(marker.is_some());
        self.short(marker.as_ref().map_or(0, |marker| marker.pairs.len()));
        for (value, id) in marker.iter_mut().flat_map(|marker| &mut marker.pairs) {
            self.value(value);
            self.id(id);
        }
    }

    fn flight(&mut self, flight: &mut Flight) {
        let Flight { call, site, until } = flight;
        self.short(*site);
        self.ms(until, SECOND);
        match call {
            Call::Issue { name, ttl: _, token_type: _ } => {
                self.short(0);
                self.name(name);
            }
            Call::Write { place, rotation, value, expected } => {
                self.short(1);
                self.short(*place);
                self.id(rotation);
                self.value(value);
                self.number(expected.unwrap_or(0));
            }
            Call::Revoke { index, sent } => {
                self.short(2);
                self.value(index);
                self.ms(sent, 10 * MINUTE);
            }
        }
    }

    fn site(&mut self, site: &mut Site) {
        let Site { journal, backup, process, processes, wake, config } = site;
        self.short(*config);
        self.ms(wake, SECOND);
        *processes = u64::from(process.is_some());
        let steady_now = process.as_ref().map(|process| process.clock.steady + self.now + self.shift - process.clock.read_at);
        self.process = process.as_ref().map(|process| process.id);
        self.base = steady_now.unwrap_or(journal.mark.steady.0);
        self.steadiest = journal.mark.steady.0 - self.base - STEADY_AGE;
        self.flag(process.is_some());
        if let Some(process) = process {
            self.running(process);
        }
        self.journal(journal);
        self.flag(backup.is_some());
        if let Some(backup) = backup {
            self.process = None;
            self.base = backup.mark.steady.0;
            self.steadiest = -STEADY_AGE;
            self.journal(backup);
        }
    }

    fn running(&mut self, process: &mut Process) {
        let Process { id, since, clock, hands, unsent } = process;
        *id = ProcessId(1);
        self.moment(since);
        (clock.read_at, clock.steady) = (self.now, 0);
        self.flag(clock.frozen);
        self.number(clock.uncounted.unwrap_or(-1) as u64);
        let old = std::mem::take(hands);
        self.short(old.len());
        for (mut rotation, mut value) in old {
            self.id(&mut rotation);
            self.value(&mut value);
            hands.insert(rotation, value);
        }
        self.id_set(unsent);
    }

    fn journal(&mut self, journal: &mut Journal) {
        let Journal { installation, created_at, row, mark } = journal;
        installation.0 = self.installations.range(..*installation).count() as u32 + 1;
        self.number(u64::from(installation.0));
        self.ms(created_at, JOURNAL_AGE);
        self.wall(&mut mark.wall, LIFE_AGE);
        mark.steady.0 -= self.base;
        self.number(mark.steady.0 as u64);
        self.flag(row.is_some());
        if let Some(Row { credential, memo }) = row {
            self.credential(credential);
            self.memo(memo);
        }
    }

    fn credential(&mut self, credential: &mut Credential) {
        let Credential {
            known,
            rotations,
            deliveries,
            former,
            settled,
            current,
            newest,
            issuing,
            listing,
            unfit,
            schedule_tag,
            scheduled_from,
            swept_at,
            last_success_at,
            blocked,
            strangers_missing,
            seen,
            seen_live,
            unsettled_while_frozen,
            name,
            renamed,
            swept_by,
            orders,
            adoptions,
            connected,
            unconnected,
        } = credential;
        self.flag(*known);
        let old = std::mem::take(rotations);
        self.short(old.len());
        for (mut id, mut rotation) in old {
            self.id(&mut id);
            self.rotation(&mut rotation);
            rotations.insert(id, rotation);
        }
        self.short(deliveries.len());
        for (id, delivery) in deliveries.iter_mut() {
            self.bytes.extend(id.as_str().bytes());
            self.delivery(delivery);
        }
        self.short(former.len());
        for (id, newest) in former.iter_mut() {
            self.bytes.extend(id.as_str().bytes());
            self.id(newest);
        }
        self.flag(settled.is_some());
        if let Some(Settled { rotation, since, grace, uncompared, used }) = settled {
            self.id(rotation);
            self.moment(since);
            self.number(grace.as_millis() as u64);
            self.flag(*uncompared);
            self.flag(*used);
        }
        self.maybe_id(current);
        self.maybe_id(newest);
        self.backoff(&mut issuing.failures, &mut issuing.until);
        self.backoff(&mut listing.failures, &mut listing.until);
        self.number(u64::from(*unfit));
        self.flag(*schedule_tag != 0);
        self.maybe_wall(scheduled_from, LIFE_AGE);
        self.maybe_wall(swept_at, 11 * MINUTE);
        *last_success_at = None;
        self.short(blocked.as_ref().map_or(0, |block| block.reason as usize + 1));
        if let Some(Block { reason: _, since, detail: _ }) = blocked {
            self.untold_wall(since);
        }
        let old = std::mem::take(strangers_missing);
        self.short(old.len());
        for (mut id, mut since) in old {
            self.id(&mut id);
            self.wall(&mut since, LISTS_AGE);
            strangers_missing.insert(id, since);
        }
        self.number(u64::from(seen.live));
        self.number(u64::from(seen.unknown));
        self.number(u64::from(seen.foreign));
        self.flag(seen_live.is_some());
        if let Some((id, process)) = seen_live {
            self.id(id);
            self.by(process);
        }
        self.flag(*unsettled_while_frozen);
        self.flag(name.is_some());
        assert!(renamed.is_empty(), "the model renames no credential");
        assert!(adoptions.is_empty(), "the model takes over no token made by hand");
        assert!(connected.is_none() && unconnected.is_none(), "the model's tokens are read/write ones");
        assert!(orders.is_empty(), "nobody orders anything in the model");
        self.maybe_by(swept_by);
    }

    fn rotation(&mut self, rotation: &mut Rotation) {
        let Rotation {
            intended_at,
            by,
            organization: _,
            account: _,
            ttl: _,
            token_type: _,
            stage,
            token,
            adopted,
            set_up,
            missing_since,
            vanished,
            attempts,
            revocation_sent,
            backoff,
        } = rotation;
        self.wall(&mut intended_at.wall, LIFE_AGE);
        self.steady(&mut intended_at.steady);
        self.by(by);
        self.short(match stage {
            Stage::Requested => 0,
            Stage::Lost => 1,
            Stage::Issued { verified: false } => 2,
            Stage::Issued { verified: true } => 3,
            Stage::Unfit => 4,
            Stage::Orphaned => 5,
            Stage::ByHand => 6,
            Stage::SetUp => 7,
        });
        self.flag(token.is_some());
        if let Some(Recorded { id, created_at, expires_at, fingerprint: known }) = token {
            let mut index = token_index(id);
            self.value(&mut index);
            *id = token_id(index);
            self.wall(created_at, LIFE_AGE);
            self.wall(expires_at, LIFE_AGE);
            self.flag(known.is_some());
            // A marker may have had it recorded with the value of another: told apart as it is.
            if let Some(known) = known {
                let mut value = u64::from_be_bytes(known.as_bytes()[..8].try_into().unwrap()) as usize;
                self.value(&mut value);
                *known = fingerprint(value);
            }
        }
        self.flag(*adopted);
        self.flag(*set_up);
        self.maybe_wall(missing_since, LISTS_AGE);
        self.flag(*vanished);
        self.short(attempts.len());
        for (id, Attempt { writing, unsettled, landed }) in attempts.iter_mut() {
            self.bytes.extend(id.as_str().bytes());
            self.maybe_by(writing);
            self.flag(unsettled.is_some());
            if let Some(since) = unsettled {
                self.moment(since);
            }
            self.flag(*landed);
        }
        self.flag(*revocation_sent);
        self.backoff(&mut backoff.failures, &mut backoff.until);
    }

    fn delivery(&mut self, delivery: &mut Delivery) {
        let Delivery { confirmed, written_at, lag, trouble, rolled_back, oddity, mended_at } = delivery;
        self.maybe_id(confirmed);
        self.flag(written_at.is_some());
        if let Some(at) = written_at {
            self.moment(at);
        }
        self.backoff(&mut lag.failures, &mut lag.until);
        self.flag(trouble.is_some());
        if let Some(Trouble { since, writing, failed, backoff }) = trouble {
            self.untold_wall(since);
            self.flag(*writing);
            self.short(failed.reason as usize);
            self.backoff(&mut backoff.failures, &mut backoff.until);
        }
        self.flag(rolled_back.is_some());
        if let Some(rolled) = rolled_back {
            self.id(&mut rolled.shows);
            self.id(&mut rolled.under);
        }
        self.short(oddity.map_or(0, |oddity| oddity as usize + 1));
        self.maybe_wall(mended_at, MEND_AGE);
    }

    fn memo(&mut self, memo: &mut Memo) {
        let Memo {
            recorded,
            newest,
            shown,
            reached,
            period,
            attempted,
            unreadable,
            scheduled_from: _,
            rotate_after,
            revoke_now,
            resumed,
            used,
            connected,
        } = memo;
        assert!(
            rotate_after.is_none() && revoke_now.is_empty() && resumed.is_empty() && used.is_none(),
            "nobody orders anything in the model"
        );
        assert!(connected.is_none(), "the model's tokens are read/write ones");
        self.id_set(recorded);
        self.maybe_id(newest);
        self.short(shown.len());
        for (place, (rotation, since)) in shown.iter_mut() {
            self.bytes.extend(place.as_str().bytes());
            self.maybe_id(rotation);
            self.ms(since, ORACLE_AGE);
        }
        self.short(reached.len());
        for (place, rotation) in reached.iter_mut() {
            self.bytes.extend(place.as_str().bytes());
            self.id(rotation);
        }
        self.flag(period.is_some());
        if let Some(Period { rotation, since, grace }) = period {
            self.id(rotation);
            self.ms(since, ORACLE_AGE);
            self.number(*grace as u64);
        }
        self.id_set(attempted);
        self.short(unreadable.len());
        for place in unreadable.iter() {
            self.bytes.extend(place.as_str().bytes());
        }
    }
}
