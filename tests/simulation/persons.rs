//! What comes from outside: people, other installations, outages, and the fate of the journal.

use rotad::rotation::{InstallationId, Order, RotationId, TokenName};

use super::coverage::{During, Fault};
use super::process::Journal;
use super::setup::{account_index, is_of, owner};
use super::sim::{Event, NEVER, Sim, policy_every};
use super::world::{Author, Content, DAY, Ended, FOREIGN, HOUR, MINUTE, Marker, Ms, SECOND, Token, stamp};

impl Sim<'_> {
    pub fn next_person(&mut self, credential: usize) {
        if self.faults.persons == 0 {
            return;
        }
        let every = policy_every(self.actors[credential].policy);
        let mean = every * 1000 / self.faults.persons as Ms;
        // Half of them come while a turn is likely: shortly after the one before.
        let wait = if self.rng.permille(300) { self.rng.between(1, MINUTE) } else { self.rng.between(1, 2 * mean) };
        self.at(self.now + wait, Event::Person(credential));
    }

    pub fn person(&mut self, credential: usize) {
        if self.now >= self.setup.chaos_ends {
            return;
        }
        match self.rng.below(18) {
            0..=2 => self.change_place(credential, Fault::RollBack),
            3 => self.change_place(credential, Fault::ChangedByHand),
            4 | 5 => self.change_place(credential, Fault::Wiped),
            6 => self.change_place(
                credential,
                *[Fault::ScheduledForDeletion, Fault::OwnedByOther].get(self.now as usize % 2).unwrap(),
            ),
            7 if self.faults.hand_revocations => self.revoke_by_hand(credential),
            8 if self.faults.journal => self.strike_journal(credential),
            9 if self.faults.second_installation => self.second_installation(credential),
            10 | 11 if self.faults.configuration => self.reconfigure(credential),
            12 if self.faults.accounts => self.toggle_account(credential),
            13 if self.faults.hand_revocations => self.another_organization = !self.another_organization,
            14 | 15 if self.faults.outages => self.outage(credential),
            16 | 17 => self.order(credential),
            _ => {}
        }
        self.next_person(credential);
    }

    /// A person's change in the midst of an action.
    pub fn meddle(&mut self, credential: usize) {
        let faults = [Fault::RollBack, Fault::ChangedByHand, Fault::Wiped];
        let fault = *self.rng.pick(&faults);
        self.change_place(credential, fault);
    }

    fn change_place(&mut self, credential: usize, fault: Fault) {
        let configured: Vec<usize> = (0..self.places.len())
            .filter(|index| {
                let place = &self.places[*index];
                place.credential == credential && self.actors[credential].policy.deliveries.contains_key(&place.id)
            })
            .collect();
        let index = *self.rng.pick(&configured);
        let now = self.places[index].now().content.clone();
        let content = match fault {
            Fault::RollBack => {
                let held: Vec<Content> = self.places[index].versions.iter().map(|version| version.content.clone()).collect();
                let earlier = self.rng.pick(&held).clone();
                if earlier.value.is_none() || earlier.value == now.value {
                    return;
                }
                // Some put the whole secret back, some only its value.
                if self.rng.permille(500) { earlier } else { Content { value: earlier.value, ..now } }
            }
            Fault::ChangedByHand => {
                let value = Some(FOREIGN + self.rng.below(1 << 20) as usize);
                let marker = now.marker.filter(|_| self.rng.permille(700));
                Content { value, marker, scheduled_for_deletion: false }
            }
            Fault::Wiped => {
                Content { value: None, marker: now.marker.filter(|_| self.rng.permille(500)), scheduled_for_deletion: false }
            }
            Fault::ScheduledForDeletion => Content { scheduled_for_deletion: true, ..now },
            _ => {
                let value = Some(FOREIGN + self.rng.below(1 << 20) as usize);
                Content { value, marker: Some(Marker { owner: owner(77), pairs: Vec::new() }), scheduled_for_deletion: false }
            }
        };
        self.meet_outside(fault, credential);
        let (id, value) = (self.places[index].id.clone(), content.value);
        self.tell(|| format!("a person puts {value:?} into `{id}` ({fault:?})"));
        self.places[index].put(self.now, content, Author::Person);
    }

    fn revoke_by_hand(&mut self, credential: usize) {
        let live: Vec<usize> = (0..self.tokens.len())
            .filter(|index| self.tokens[*index].is_live(self.now) && is_of(&self.tokens[*index].name.owner, credential))
            .collect();
        if live.is_empty() {
            return;
        }
        let index = *self.rng.pick(&live);
        self.meet_outside(Fault::RevokedByHand, credential);
        self.tell(|| format!("a person revokes t{index}"));
        self.tokens[index].ended = Some((self.now, Ended::ByHand));
    }

    fn strike_journal(&mut self, credential: usize) {
        match self.rng.below(4) {
            0 => {
                self.meet_outside(Fault::JournalLost, credential);
                self.tell(|| "the journal is lost".to_owned());
                self.crash();
                self.journal_struck = true;
                let installation = InstallationId(self.rng.next() as u32);
                let rows = vec![None; self.actors.len()];
                self.journal = Journal { installation, created_at: stamp(self.now), rows, mark: self.journal.mark };
            }
            1 if !self.snapshots.is_empty() => {
                self.meet_outside(Fault::JournalRestored, credential);
                self.tell(|| "the journal is restored from before".to_owned());
                self.crash();
                self.journal_struck = true;
                self.journal = self.rng.pick(&self.snapshots).clone();
            }
            2 => {
                let until = self.now + self.rng.between(SECOND, HOUR);
                self.journal_broken_until = until;
            }
            _ => {
                self.snapshots.push(self.journal.clone());
                if self.snapshots.len() > 4 {
                    self.snapshots.remove(0);
                }
            }
        }
    }

    /// Another daemon runs under our name: it makes a token, and may deliver it.
    fn second_installation(&mut self, credential: usize) {
        let wall = stamp(self.now);
        let rotation = RotationId::mint(wall, None, InstallationId(0x0bad_cafe), self.rng.next());
        let policy = self.actors[credential].policy;
        let index = self.tokens.len();
        let ttl = policy.ttl.as_millis() as Ms;
        self.tokens.push(Token {
            name: TokenName { owner: policy.owner.clone(), rotation },
            account: account_index(&policy.account),
            created: self.now,
            expires: self.now + ttl,
            token_type: policy.token_type,
            ended: None,
            listed_from: self.now,
            by_hand: false,
        });
        // It is a rotad too, and keeps the same rule.
        self.connected.insert(account_index(&policy.account));
        self.meet_outside(Fault::SecondInstallation, credential);
        self.tell(|| format!("a second installation makes t{index} for {rotation}"));
        if self.rng.permille(500) {
            let place = self.places.iter_mut().find(|place| place.credential == credential).unwrap();
            place.write(self.now, &policy.owner, index, rotation);
            place.versions.last_mut().unwrap().author = Author::Person;
        }
    }

    fn reconfigure(&mut self, credential: usize) {
        let versions = &self.setup.plans[credential].versions;
        let next = self.actors[credential].version + 1;
        if next + 1 >= versions.len() || self.actors[credential].turn.is_some() {
            return;
        }
        let renamed = versions[next].owner != self.actors[credential].policy.owner;
        self.meet_outside(if renamed { Fault::Renamed } else { Fault::Reconfigured }, credential);
        self.configure(credential, next);
    }

    fn configure(&mut self, credential: usize, version: usize) {
        let setup = self.setup;
        let policy = &setup.plans[credential].versions[version];
        self.tell(|| {
            let places: Vec<&str> = policy.deliveries.keys().map(|id| id.as_str()).collect();
            format!(
                "c{credential} is configured anew: ttl {} s, every {} s, grace {} s, {places:?}",
                policy.ttl.as_secs(),
                policy_every(policy) / SECOND,
                policy.grace.as_secs()
            )
        });
        self.reschedule(credential, version);
    }

    /// Commands of a person, as they reach the next turn.
    fn order(&mut self, credential: usize) {
        let order = match self.rng.below(6) {
            0 | 1 => Order::Rotate { revoke_now: false },
            2 => Order::Rotate { revoke_now: true },
            3 => {
                let until = stamp(self.now + self.rng.between(SECOND, 3 * DAY));
                Order::Pause { until, reason: "a migration".to_owned(), let_expire: false }
            }
            4 => Order::Resume,
            _ => Order::Sweep,
        };
        self.meet_outside(Fault::Ordered, credential);
        self.tell(|| format!("a person orders {order:?} at c{credential}"));
        self.actors[credential].orders.push(order);
    }

    fn toggle_account(&mut self, credential: usize) {
        let account = account_index(&self.actors[credential].policy.account);
        if !self.accounts_gone.remove(&account) {
            self.delete_account(account);
        }
    }

    pub fn delete_account(&mut self, account: usize) {
        self.tell(|| format!("account {account} is deleted"));
        self.accounts_gone.insert(account);
        for token in self.tokens.iter_mut().filter(|token| token.account == account && token.ended.is_none()) {
            token.ended = Some((self.now, Ended::ByHand));
        }
    }

    fn outage(&mut self, credential: usize) {
        let every = policy_every(self.actors[credential].policy);
        let longest = *self.rng.pick(&[MINUTE, 10 * MINUTE, HOUR, (2 * every).min(DAY)]);
        let until = self.now + self.rng.between(SECOND, longest);
        let places: Vec<usize> = (0..self.places.len()).filter(|index| self.places[*index].credential == credential).collect();
        let place = *self.rng.pick(&places);
        self.tell(|| format!("an outage until {}", super::clock(until)));
        match self.rng.below(3) {
            0 => self.api_down_until = until,
            1 => self.places[place].unreadable_until = until,
            _ => self.places[place].unwritable_until = until,
        }
    }

    /// What only a person can mend.
    pub fn mend_as_a_person(&mut self) {
        self.another_organization = false;
        self.accounts_gone.clear();
        self.api_down_until = 0;
        self.journal_broken_until = 0;
        for place in &mut self.places {
            place.unreadable_until = 0;
            place.unwritable_until = 0;
            let held = &place.now().content;
            let anothers = held.marker.as_ref().is_some_and(|marker| !is_of(&marker.owner, place.credential));
            if held.scheduled_for_deletion || anothers {
                place.put(self.now, Content::default(), Author::Person);
            }
        }
        // Other installations are stopped, and what they made is removed: the second one's, and those
        // of a journal that a restored one has replaced.
        let (installation, since) = (self.journal.installation, super::world::ms_of(self.journal.created_at));
        let late = |token: &&mut Token| {
            !token.by_hand && token.name.rotation.installation() != installation && token.created > since + 14 * MINUTE
        };
        for token in self.tokens.iter_mut().filter(late) {
            token.ended = token.ended.or(Some((self.now, Ended::ByHand)));
        }
        for token in self.tokens.iter_mut().filter(|token| token.expires == NEVER && token.ended.is_none() && !token.by_hand) {
            token.ended = Some((self.now, Ended::ByHand));
        }
        for credential in 0..self.actors.len() {
            let last = self.setup.plans[credential].versions.len() - 1;
            self.configure(credential, last);
            self.actors[credential].orders.push(Order::Resume);
        }
        self.coverage.meet(Fault::None, During::Wait);
    }
}
