//! Which credentials need a person, by what a summary alone tells: cheap enough to sort a whole fleet by.

use jiff::{SignedDuration, Timestamp};

use super::{At, CredentialState, Summary, label};

/// Revocations that are late by less are on their way: limits and repetitions take their time. As the shipped alert has it.
const REVOCATION_LATE: SignedDuration = SignedDuration::from_hours(1);

label!(
    /// Why a person should look at a credential, the most pressing first.
    Attention {
        /// A delivery serves a token that has expired: whoever reads it can't connect.
        Expired = "expired",
        /// The last safe moment to have rotated is over.
        PastDeadline = "past_deadline",
        Blocked = "blocked",
        /// A delivery can't be read or written.
        Undelivered = "undelivered",
        /// MotherDuck's API gives no list, or no token.
        ProviderFailing = "provider_failing",
        /// A token should have been revoked an hour ago.
        RevocationOverdue = "revocation_overdue",
        /// Tokens live under its name that the journal did not record.
        UnknownTokens = "unknown_tokens",
        /// A person paused it.
        Paused = "paused",
    }
);

impl Summary {
    /// What a person should look at, the most pressing first; nothing of a credential that is only observed.
    pub fn attention(&self, now: Timestamp) -> impl Iterator<Item = Attention> {
        let late = |at: At| at.timestamp().is_some_and(|at| now.duration_since(at) >= REVOCATION_LATE);
        let acted_on = self.state != CredentialState::Observed;
        let reasons = [
            (Attention::Expired, self.served_until.has_come(now)),
            (Attention::PastDeadline, self.deadline_at.has_come(now)),
            (Attention::Blocked, self.blocked.is_some()),
            (Attention::Undelivered, self.deliveries_failing > 0),
            (Attention::ProviderFailing, self.provider_failing),
            (Attention::RevocationOverdue, self.revocations_pending > 0 && late(self.revocation_oldest_due_at)),
            (Attention::UnknownTokens, self.tokens_unknown > 0),
            (Attention::Paused, self.paused_until.timestamp().is_some_and(|until| now < until)),
        ];
        reasons.into_iter().filter(move |(_, holds)| acted_on && *holds).map(|(attention, _)| attention)
    }

    /// Its own margin, from and until when: from its due time to its deadline, or, while a new token is on its way and
    /// nothing is due before the deadline, the life of the token that is still served. As the shipped recording rule
    /// `rotad:credential_margin_used:ratio` has it.
    pub fn margin(&self) -> Option<(At, At)> {
        let spans = [(self.due_at, self.deadline_at), (self.last_success_at, self.expires_at)];
        spans.into_iter().find(|(from, until)| from.millis().zip(until.millis()).is_some_and(|(from, until)| from < until))
    }

    /// Whether more than half of its margin is used up, as the shipped alert `RotadMarginLow` has it. Not of one that is
    /// only observed.
    pub fn is_near_its_deadline(&self, now: Timestamp) -> bool {
        let used = |(from, until): (i64, i64)| (now.as_millisecond() - from).saturating_mul(2) > until - from;
        let margin = self.margin().and_then(|(from, until)| from.millis().zip(until.millis()));
        self.state != CredentialState::Observed && margin.is_some_and(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::{Blocked, Moment, Steady};
    use crate::snapshot::{Board, Label};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn each_reason_shows_and_the_most_pressing_is_first() {
        let organization = Board::new(Moment { wall: at(0), steady: Steady(0) }).organization("main");
        let calm = Summary {
            state: CredentialState::Retiring,
            served_until: at(500).into(),
            deadline_at: at(400).into(),
            revocations_pending: 1,
            revocation_oldest_due_at: at(-3_599).into(),
            paused_until: at(0).into(),
            ..Summary::new(organization)
        };
        assert_eq!(calm.attention(at(0)).count(), 0);
        let pressing = Summary {
            served_until: at(0).into(),
            deadline_at: at(-1).into(),
            blocked: Some(Blocked::RolledBack),
            deliveries_failing: 1,
            provider_failing: true,
            revocation_oldest_due_at: at(-3_600).into(),
            tokens_unknown: 2,
            paused_until: at(1).into(),
            ..calm
        };
        assert_eq!(pressing.attention(at(0)).collect::<Vec<_>>(), Attention::ALL);
        let observed = Summary { state: CredentialState::Observed, ..pressing };
        assert_eq!(observed.attention(at(0)).count(), 0);
    }

    #[test]
    fn half_of_the_margin_is_that_of_its_own_schedule() {
        let organization = Board::new(Moment { wall: at(0), steady: Steady(0) }).organization("main");
        let due = Summary { due_at: at(100).into(), deadline_at: at(200).into(), ..Summary::new(organization) };
        assert_eq!([0, 150, 151].map(|second| due.is_near_its_deadline(at(second))), [false, false, true]);
        let observed = Summary { state: CredentialState::Observed, ..due };
        assert!(!observed.is_near_its_deadline(at(199)));
        // On its way: due at the deadline, and measured by the token that is served.
        let served = Summary { last_success_at: at(0).into(), expires_at: at(1000).into(), ..due };
        let on_its_way = Summary { due_at: at(200).into(), ..served };
        assert_eq!([151, 500, 501].map(|second| on_its_way.is_near_its_deadline(at(second))), [false, false, true]);
        assert!(!Summary::new(organization).is_near_its_deadline(at(0)));
    }
}
