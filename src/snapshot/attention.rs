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
}
