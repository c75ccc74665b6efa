//! Which alternatives the environment has at a point of a turn, and what comes from outside.

use rotad::rotation::{Action, InstallationId};

use super::chooser::Alternative;
use super::faults::Kind;
use super::run::{Outside, RESTART, Run, Turning, is_effect};
use super::state::{Call, DELETE_LATE, GRACE, Journal, POST_LATE, TTL};
use crate::simulator::world::{Author, Content, Ended, FOREIGN, MINUTE, Ms, Place, SECOND};

/// A fault; `at` says which place or token it concerns, where there are several, or which configuration comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub at: u16,
}

/// A quarter of an hour away: a grace period is over, a due time may be.
const AWAY: Ms = 3 * GRACE;
/// The longest that a list may lack a new token (design: two lists a minute apart are a proof).
const LIST_LAG: Ms = 60 * SECOND;

impl Run<'_, '_> {
    pub fn alternatives(&self, turning: &Turning<'_>, action: &Action) -> Vec<Alternative> {
        let mut all = vec![Alternative::Nothing];
        all.extend((0..self.state.flights.len()).map(Alternative::Lands));
        let effect = is_effect(action);
        if self.state.takeovers_left > 0 && (effect || turning.first) {
            all.push(Alternative::TakeOver);
        }
        if self.state.newcomers_left > 0 && turning.first {
            all.push(Alternative::Newcomer);
        }
        if self.state.faults_left == 0 {
            return all;
        }
        let mut faults = Vec::with_capacity(24);
        self.crashes(turning, action, effect, &mut faults);
        self.answers(turning, action, &mut faults);
        self.persons(turning, &mut faults);
        all.extend(faults.into_iter().map(|(kind, at)| Alternative::Fault(Fault { kind, at: at as u16 })));
        all
    }

    fn crashes(&self, turning: &Turning<'_>, action: &Action, effect: bool, faults: &mut Vec<(Kind, usize)>) {
        let told = turning.fresh && !turning.first;
        faults.push((if told { Kind::CrashBeforeTold } else { Kind::CrashBeforeSave }, 0));
        if effect {
            faults.extend([(Kind::CrashAfterSave, 0), (Kind::CrashInFlight, 0), (Kind::CrashThenAway, 0)]);
        }
        if matches!(action, Action::Wait { .. }) {
            faults.push((Kind::CrashAfterSave, 0));
        }
        // What only reads and lists have happened since is the same as before them.
        if turning.fresh {
            faults.extend([(Kind::AwayTillExpired, 0), (Kind::JournalLost, 0)]);
            if self.state.sites[turning.site].backup.is_some() {
                faults.push((Kind::JournalRestored, 0));
            }
        }
    }

    fn answers(&self, _: &Turning<'_>, action: &Action, faults: &mut Vec<(Kind, usize)>) {
        let now = self.state.now;
        match action {
            Action::List { .. } => {
                faults.push((Kind::ListLacksPage, 0));
                if self.newest_young().is_some() {
                    faults.push((Kind::ListLags, 0));
                }
            }
            Action::Read { delivery } => {
                faults.push((Kind::ReadFails, 0));
                let place = self.state.places.iter().find(|place| place.id == *delivery).unwrap();
                if place.versions.len() > 1 && place.now().at > now - place.lag {
                    faults.push((Kind::ReadLags, 0));
                }
            }
            Action::Issue { .. } => {
                use Kind as K;
                faults.extend([K::IssueRefused, K::IssueLostNotDone, K::IssueLostDone, K::IssueLate].map(|kind| (kind, 0)));
            }
            Action::Write { .. } => {
                use Kind as K;
                faults.extend([K::WriteRefused, K::WriteLostNotDone, K::WriteLostDone, K::WriteLate].map(|kind| (kind, 0)));
            }
            Action::Revoke { .. } => {
                use Kind as K;
                faults.extend([K::RevokeRefused, K::RevokeLostNotDone, K::RevokeLostDone, K::RevokeLate].map(|kind| (kind, 0)));
            }
            Action::Verify { .. } | Action::Connect { .. } | Action::Wait { .. } => {}
        }
    }

    /// The newest token that lives, while a list may lack it.
    pub fn newest_young(&self) -> Option<usize> {
        let now = self.state.now;
        let newest = (0..self.state.tokens.len())
            .filter(|index| self.state.tokens[*index].is_live(now))
            .max_by_key(|index| self.state.tokens[*index].created)?;
        (self.state.tokens[newest].created > now - LIST_LAG).then_some(newest)
    }

    fn persons(&self, turning: &Turning<'_>, faults: &mut Vec<(Kind, usize)>) {
        for (index, place) in self.state.places.iter().enumerate() {
            if !turning.policy.deliveries.contains_key(&place.id) {
                continue;
            }
            let held = &place.now().content;
            if self.earlier(index).is_some() {
                faults.push((Kind::RolledBack, index));
            }
            if held.value != Some(FOREIGN) {
                faults.push((Kind::ChangedByHand, index));
            }
            if held.value.is_some() {
                faults.push((Kind::Wiped, index));
            }
        }
        let mut live: Vec<usize> =
            (0..self.state.tokens.len()).filter(|index| self.state.tokens[*index].is_live(self.state.now)).collect();
        live.sort_by_key(|index| self.state.tokens[*index].name.rotation);
        faults.extend(live.into_iter().map(|index| (Kind::RevokedByHand, index)));
        if turning.first {
            match self.state.sites[turning.site].config {
                0 => faults.extend([(Kind::DeliveryRemoved, 1), (Kind::DeliveryMoved, 2), (Kind::DeliveryAdded, 3)]),
                1 | 2 => faults.push((Kind::DeliveryAdded, 0)),
                _ => faults.push((Kind::DeliveryRemoved, 0)),
            }
        }
    }

    /// What the place held before its last change, if that was another value.
    fn earlier(&self, place: usize) -> Option<Content> {
        let [.., before, now] = self.state.places[place].versions.as_slice() else { return None };
        let held = &before.content;
        (held.value.is_some() && held.value != now.content.value).then(|| held.clone())
    }

    /// Carries out what comes from outside.
    pub fn outside(&mut self, turning: &mut Turning<'_>, fault: Fault) -> Outside {
        let now = self.state.now;
        let site = turning.site;
        let at = usize::from(fault.at);
        match fault.kind {
            Kind::CrashBeforeSave | Kind::CrashBeforeTold => Outside::Dies(RESTART),
            Kind::AwayTillExpired => Outside::Dies(TTL + 2 * MINUTE),
            Kind::RolledBack => {
                let content = self.earlier(at).unwrap();
                self.put(at, content)
            }
            Kind::ChangedByHand => {
                let marker = self.state.places[at].now().content.marker.clone();
                self.put(at, Content { value: Some(FOREIGN), marker, scheduled_for_deletion: false })
            }
            Kind::Wiped => {
                let marker = self.state.places[at].now().content.marker.clone();
                self.put(at, Content { value: None, marker, scheduled_for_deletion: false })
            }
            Kind::RevokedByHand => {
                self.tell(|| format!("a person revokes t{at}"));
                self.state.tokens[at].ended = Some((now, Ended::ByHand));
                Outside::GoesOn
            }
            Kind::JournalLost => {
                let newest = self.state.sites.iter().map(|site| site.journal.installation.0).max().unwrap();
                let mark = self.state.sites[site].journal.mark;
                self.state.sites[site].journal = Journal::new(InstallationId(newest + 1), now + RESTART, mark);
                self.state.sites[site].backup = None;
                Outside::Dies(RESTART)
            }
            Kind::JournalRestored => {
                self.state.sites[site].journal = *self.state.sites[site].backup.clone().unwrap();
                Outside::Dies(RESTART)
            }
            Kind::DeliveryRemoved | Kind::DeliveryMoved | Kind::DeliveryAdded => self.configure(at),
            _ => Outside::Strikes,
        }
    }

    /// Two installations of one name have one configuration: with places of its own neither could know
    /// where the other delivers.
    fn configure(&mut self, config: usize) -> Outside {
        self.state.sites.iter_mut().for_each(|site| site.config = config);
        Outside::BeginsAnew
    }

    fn put(&mut self, place: usize, content: Content) -> Outside {
        let now = self.state.now;
        self.tell(|| format!("a person puts {:?} into place {place}", content.value));
        self.state.places[place].put(now, content, Author::Person);
        Outside::GoesOn
    }

    /// How long after its process is gone a call may land.
    pub fn late_by(call: &Call, places: &[Place]) -> Ms {
        match call {
            Call::Write { place, .. } => 2 * places[*place].write_limit - 1,
            Call::Issue { .. } => POST_LATE,
            Call::Revoke { .. } => DELETE_LATE,
        }
    }

    /// After how long the next process comes when this one dies by `kind`.
    pub fn absence(kind: Kind) -> Ms {
        if kind == Kind::CrashThenAway { AWAY } else { RESTART }
    }
}
