//! What comes from outside: people, other installations, clocks, outages, and the fate of the journal.

use std::sync::Arc;

use rotad::rotation::{InstallationId, RotationId, TokenName};
use rotad::secret::Secret;

use super::api::namesake;
use super::journal::Record;
use super::matrix::{Class, Fault};
use super::setup::{ORGANIZATIONS, Times, deliveries, organization_of};
use super::world::{Mend, Signal, World, connected_by_a_person};
use crate::simulator::rng::Rng;
use crate::simulator::setup::{account_index, owner};
use crate::simulator::sim::NEVER;
use crate::simulator::world::{Author, Content, DAY, Ended, FOREIGN, HOUR, MINUTE, Marker, Ms, SECOND, Token, ms_of, stamp};

/// As many backups of the journal as are kept.
const SNAPSHOTS_MAX: usize = 4;
/// How long after our journal's begin another installation may have lived on.
const PREDECESSOR: Ms = 15 * MINUTE;

/// The admin token of our organizations, or of the other one of this number.
pub fn admin_token(other: Option<usize>) -> Secret {
    Secret::new(other.map_or("right".to_owned(), |number| format!("wrong {number}")))
}

impl World {
    /// What the next call to an organization is made with, for whoever is about to make it: from now on it can be known.
    pub fn admin_token_in_use(&mut self, organization: usize) -> Secret {
        let wrong = self.wrong_organization == Some(organization);
        if wrong {
            self.flagged.insert(organization);
        }
        admin_token(wrong.then_some(self.others))
    }

    /// Something happens, with regard to one credential where it is about one. Gives whether it could.
    pub fn outside(&mut self, fault: Fault, credential: usize) -> bool {
        let step = self.actors[credential].step;
        if self.calm || self.is_off(fault.class(step)) {
            return false;
        }
        self.tell(Some(credential), || format!("{fault:?}"));
        let happened = self.happens(fault, credential);
        if happened {
            self.matrix.meet(fault, step);
        } else {
            self.tell(Some(credential), || format!("{fault:?} could not be"));
        }
        happened
    }

    fn happens(&mut self, fault: Fault, credential: usize) -> bool {
        use Fault::*;
        match fault {
            RolledBack | ChangedByHand | Wiped | ScheduledForDeletion | OwnedByOther => self.change_place(fault, credential),
            RevokedByHand => self.revoke_by_hand(credential),
            SecondInstallation => self.second_installation(credential),
            NoSuchAccount => self.delete_account(credential),
            WrongOrganization => self.wrong_admin_token(credential),
            DeliveriesChanged => self.change_deliveries(credential),
            TimesChanged => self.change_times(credential),
            CredentialRemoved => self.remove_credential(credential),
            ClockAMinuteAhead => self.jump(MINUTE),
            ClockAMinuteBack => self.jump(-MINUTE),
            ClockAnHourAhead => self.jump(HOUR),
            ClockAnHourBack => self.jump(-HOUR),
            ClockAYearAhead => self.jump(365 * DAY),
            ClockAYearBack => self.jump(-365 * DAY),
            Suspended => {
                let longest = *self.class_rng(Class::Clocks).pick(&[MINUTE, 10 * MINUTE, HOUR]);
                let longest = longest.min(self.setup.every / 4);
                let period = self.class_rng(Class::Clocks).between(SECOND, longest.max(2 * SECOND));
                self.time.suspend(period);
                self.tell(None, || format!("the machine was suspended for {} s", period / SECOND));
                true
            }
            TokenExpired => self.outlive_a_token(credential),
            Stopped => {
                self.signal(Signal::Stop);
                self.life.is_some()
            }
            CrashBefore => {
                let lives = self.life.is_some();
                self.crash();
                lives
            }
            JournalLost => self.lose_journal(),
            JournalRestored => self.restore_journal(),
            JournalUnwritable => {
                let longest = self.setup.every / 4;
                let period = self.class_rng(Class::Journal).between(SECOND, longest);
                self.journal_broken_until = self.now + period;
                true
            }
            Unavailable => {
                // Most are short; while one lasts, every credential asks again and again.
                let longest = *self.class_rng(Class::Api).pick(&[HOUR, HOUR, HOUR, DAY]);
                let longest = longest.min(self.setup.every);
                let period = self.class_rng(Class::Api).between(MINUTE, longest);
                self.api_down_until = self.now + period;
                true
            }
            Unreachable => {
                let longest = DAY.min(self.setup.every);
                let until = self.now + self.class_rng(Class::Sink).between(MINUTE, longest);
                let places = self.actors[credential].places.clone();
                let place = *self.class_rng(Class::Sink).pick(&places);
                let unreadable = self.class_rng(Class::Sink).permille(500);
                let place = &mut self.places[place];
                let end = if unreadable { &mut place.unreadable_until } else { &mut place.unwritable_until };
                *end = until;
                true
            }
            _ => false,
        }
    }

    fn persons(&mut self) -> &mut Rng {
        self.class_rng(Class::Persons)
    }

    fn later(&mut self, mend: Mend) {
        let longest = self.setup.every / 2;
        let at = self.now + self.persons().between(SECOND, longest.max(2 * SECOND));
        self.signal(Signal::Mend(at, mend));
    }

    fn change_place(&mut self, fault: Fault, credential: usize) -> bool {
        let actor = &self.actors[credential];
        let configured: Vec<usize> =
            actor.places.iter().copied().filter(|place| actor.policy.deliveries.contains_key(&self.places[*place].id)).collect();
        let index = *self.persons().pick(&configured);
        let held = self.places[index].now().content.clone();
        let content = match fault {
            Fault::RolledBack => {
                let before: Vec<Content> = self.places[index].versions.iter().map(|version| version.content.clone()).collect();
                let fits: Vec<Content> =
                    before.into_iter().filter(|content| content.value.is_some() && content.value != held.value).collect();
                if fits.is_empty() {
                    return false;
                }
                let earlier = self.persons().pick(&fits).clone();
                // Some put the whole secret back, some only its value.
                if self.persons().permille(500) { earlier } else { Content { value: earlier.value, ..held } }
            }
            Fault::ChangedByHand => {
                let value = Some(FOREIGN + self.persons().below(1 << 20) as usize);
                let marker = held.marker.filter(|_| self.persons().permille(700));
                Content { value, marker, scheduled_for_deletion: false }
            }
            Fault::Wiped => {
                let marker = held.marker.filter(|_| self.persons().permille(500));
                Content { value: None, marker, scheduled_for_deletion: false }
            }
            Fault::ScheduledForDeletion => {
                self.later(Mend::Place(index));
                Content { scheduled_for_deletion: true, ..held }
            }
            _ => {
                self.later(Mend::Place(index));
                let value = Some(FOREIGN + self.persons().below(1 << 20) as usize);
                Content { value, marker: Some(Marker { owner: owner(77_777), pairs: Vec::new() }), scheduled_for_deletion: false }
            }
        };
        let (id, value) = (self.places[index].id.clone(), content.value);
        self.tell(Some(credential), || format!("a person puts {value:?} into `{id}`"));
        self.places[index].put(self.now, content, Author::Person);
        true
    }

    /// The live tokens of a credential.
    fn own_live(&mut self, credential: usize) -> Vec<usize> {
        let (account, own) = (account_index(&self.actors[credential].policy.account), owner(credential));
        let live = self.live_of(account);
        live.into_iter().filter(|index| self.tokens[*index].name.owner == own).collect()
    }

    fn outlive_a_token(&mut self, credential: usize) -> bool {
        let live = self.own_live(credential);
        let Some(first) = live.into_iter().map(|index| self.tokens[index].expires).filter(|expires| *expires != NEVER).min()
        else {
            return false;
        };
        let period = first - self.now + 1;
        self.time.suspend(period);
        self.tell(None, || format!("the machine was suspended for {} s, until a token had expired", period / SECOND));
        true
    }

    fn revoke_by_hand(&mut self, credential: usize) -> bool {
        let ours = self.own_live(credential);
        if ours.is_empty() {
            return false;
        }
        let index = *self.persons().pick(&ours);
        self.tell(Some(credential), || format!("a person revokes t{index}"));
        self.tokens[index].ended = Some((self.now, Ended::ByHand));
        true
    }

    /// Another installation of the same deployment makes a token, and perhaps delivers it.
    fn second_installation(&mut self, credential: usize) -> bool {
        if self.now < ms_of(self.record.identity.created_at) + PREDECESSOR + MINUTE {
            return false;
        }
        let policy = self.actors[credential].policy.clone();
        let rotation = RotationId::mint(stamp(self.now), None, InstallationId(0x7777_7777), self.persons().next());
        let name = TokenName { owner: policy.owner.clone(), rotation };
        let token = Token {
            name,
            account: account_index(&policy.account),
            created: self.now,
            expires: self.now + policy.ttl.as_millis() as Ms,
            token_type: policy.token_type,
            ended: None,
            listed_from: self.now,
            by_hand: false,
        };
        // It connects to an account first, as we do.
        self.connected.insert(token.account);
        let index = self.add_token(token);
        self.later(Mend::Token(index));
        if self.persons().permille(500) {
            let places = self.actors[credential].places.clone();
            let place = *self.persons().pick(&places);
            self.places[place].write(self.now, &policy.owner, index, rotation);
            self.places[place].versions.last_mut().unwrap().author = Author::Person;
        }
        true
    }

    fn delete_account(&mut self, credential: usize) -> bool {
        let account = account_index(&self.actors[credential].policy.account);
        if !self.accounts_gone.insert(account) {
            return false;
        }
        for index in self.live_of(account) {
            self.tokens[index].ended = Some((self.now, Ended::ByHand));
        }
        self.later(Mend::Account(account));
        true
    }

    fn wrong_admin_token(&mut self, credential: usize) -> bool {
        let organization = organization_of(account_index(&self.actors[credential].policy.account));
        if self.wrong_organization.is_some() {
            return false;
        }
        self.wrong_organization = Some(organization);
        self.wrong_since = self.now;
        self.others += 1;
        self.signal(Signal::NewAdminToken);
        self.later(Mend::Organization);
        true
    }

    // The configuration.

    fn change_deliveries(&mut self, credential: usize) -> bool {
        let actor = &self.actors[credential];
        let (all, policy) = (actor.places.clone(), actor.policy.clone());
        let mut chosen: Vec<usize> = Vec::new();
        for place in &all {
            if self.class_rng(Class::Reloads).permille(600) {
                chosen.push(*place);
            }
        }
        if chosen.is_empty() {
            chosen.push(all[0]);
        }
        let wanted = deliveries(&self.places, &chosen, policy.deliveries.values().any(|delivery| delivery.take_over));
        if wanted == policy.deliveries {
            return false;
        }
        let mut policy = (*policy).clone();
        policy.deliveries = wanted;
        self.configure(credential, policy);
        true
    }

    fn change_times(&mut self, credential: usize) -> bool {
        let policy = self.actors[credential].policy.clone();
        let ttl = policy.ttl.as_millis() as Ms;
        let rng = self.class_rng(Class::Reloads);
        let ttl = (*rng.pick(&[ttl, ttl / 2, ttl * 2])).clamp(10 * MINUTE, 365 * DAY);
        let times = Times::draw(rng, ttl);
        let (mut next, gap) = times.policy(rng, credential, policy.deliveries.clone());
        next.account = policy.account.clone();
        next.organization = policy.organization.clone();
        self.actors[credential].gap = gap;
        self.configure(credential, next);
        true
    }

    pub fn configure(&mut self, credential: usize, policy: rotad::rotation::Policy) {
        self.tell(Some(credential), || {
            let places: Vec<&str> = policy.deliveries.keys().map(|id| id.as_str()).collect();
            let (ttl, grace) = (policy.ttl.as_secs(), policy.grace.as_secs());
            format!("is configured anew: ttl {ttl} s, {:?}, grace {grace} s, {places:?}", policy.schedule)
        });
        self.connected.extend(connected_by_a_person(&policy));
        let actor = &mut self.actors[credential];
        actor.policy = Arc::new(policy);
        actor.changed = true;
        self.signal(Signal::Reload);
    }

    fn remove_credential(&mut self, credential: usize) -> bool {
        let actor = &mut self.actors[credential];
        if !actor.configured {
            return false;
        }
        actor.configured = false;
        actor.changed = true;
        self.signal(Signal::Reload);
        self.later(Mend::Credential(credential));
        true
    }

    // Clocks and journal.

    fn jump(&mut self, by: Ms) -> bool {
        // A minute is the border: some of these jumps are believed.
        let by = by + self.class_rng(Class::Clocks).between(-3 * SECOND, 3 * SECOND);
        self.time.set_offset(by);
        let longest = (self.setup.every / 2).min(DAY);
        let at = self.now + self.class_rng(Class::Clocks).between(SECOND, longest.max(2 * SECOND));
        self.signal(Signal::Mend(at, Mend::Clock));
        self.tell(None, || format!("the wall clock is {} s off", by / SECOND));
        true
    }

    pub fn take_snapshot(&mut self) {
        self.snapshots.push(self.record.clone());
        if self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.remove(0);
        }
    }

    pub fn lose_journal(&mut self) -> bool {
        self.crash();
        let installation = self.class_rng(Class::Journal).next() as u32;
        self.blast.journal_lost(self.now);
        // A new journal is dated by the wall clock of the process that makes it.
        self.record = Record::new(installation, self.now + self.time.offset());
        true
    }

    pub fn restore_journal(&mut self) -> bool {
        if self.snapshots.is_empty() {
            return false;
        }
        self.crash();
        let snapshots = self.snapshots.len() as u64;
        let index = self.class_rng(Class::Journal).below(snapshots) as usize;
        self.blast.journal_lost(self.now);
        self.record = self.snapshots[index].clone();
        true
    }

    // Mending.

    pub fn mend(&mut self, mend: Mend) {
        self.tell(None, || format!("mended: {mend:?}"));
        match mend {
            Mend::Clock => self.time.set_offset(0),
            Mend::Place(index) => {
                let held = &self.places[index].now().content;
                let anothers = held.marker.as_ref().is_some_and(|marker| marker.owner != owner(self.places[index].credential));
                if held.scheduled_for_deletion || anothers {
                    self.places[index].put(self.now, Content::default(), Author::Person);
                }
            }
            Mend::Account(account) => drop(self.accounts_gone.remove(&account)),
            Mend::Organization => {
                self.wrong_organization = None;
                self.flagged.clear();
                self.signal(Signal::NewAdminToken);
            }
            Mend::Credential(credential) => {
                self.actors[credential].configured = true;
                // The values of a credential that is let go are wiped.
                self.actors[credential].hands.clear();
                self.signal(Signal::Reload);
            }
            Mend::Token(index) => {
                let now = self.now;
                let token = &mut self.tokens[index];
                token.ended = token.ended.or(Some((now, Ended::ByHand)));
            }
        }
    }

    /// Everything that goes wrong ends, and a person mends what only a person can.
    pub fn grow_calm(&mut self) {
        self.calm = true;
        self.tell(None, || "all faults end, and a person mends what only a person can".to_owned());
        self.time.set_offset(0);
        self.accounts_gone.clear();
        self.mend(Mend::Organization);
        self.api_down_until = 0;
        self.journal_broken_until = 0;
        for index in 0..self.places.len() {
            self.places[index].unreadable_until = 0;
            self.places[index].unwritable_until = 0;
            self.mend(Mend::Place(index));
        }
        // Blocked for good, and rightly so: whoever reads of it begins without that journal.
        if self.nothing_proves_the_admin_token() {
            self.lose_journal();
        }
        self.stop_others();
        for credential in 0..self.actors.len() {
            if !self.actors[credential].configured {
                self.mend(Mend::Credential(credential));
            }
            let actor = &mut self.actors[credential];
            let policy = Arc::make_mut(&mut actor.policy);
            policy.deliveries.values_mut().for_each(|delivery| delivery.take_over = true);
        }
        self.signal(Signal::Reload);
    }

    /// The journal began under another organization's admin token, and no token that it knows in ours lives.
    fn nothing_proves_the_admin_token(&self) -> bool {
        let right = admin_token(None).fingerprint().to_string();
        ORGANIZATIONS.iter().enumerate().any(|(index, organization)| {
            let is_ours = |token: &&Token| namesake(token.account).is_none() && organization_of(token.account) == index;
            let lives = |token: &Token| {
                token.is_live(self.now) && self.record.memo(&token.name.owner.credential).recorded.contains(&token.name.rotation)
            };
            self.record.fact(&format!("admin_token:{organization}")).is_some_and(|proven| *proven != right)
                && !self.tokens.iter().filter(is_ours).any(lives)
        })
    }

    /// Other installations are stopped, and what they made is removed: a second one's, and those of a
    /// journal that a restored one has replaced.
    fn stop_others(&mut self) {
        let now = self.now;
        let (installation, since) = (self.record.identity.installation, ms_of(self.record.identity.created_at));
        for token in self.tokens.iter_mut().filter(|token| token.ended.is_none()) {
            let late = token.name.rotation.installation() != installation && token.created > since + PREDECESSOR - MINUTE;
            if late || token.expires == NEVER {
                token.ended = Some((now, Ended::ByHand));
            }
        }
    }
}
