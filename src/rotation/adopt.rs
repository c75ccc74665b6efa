//! Tokens that people made by hand and that the operator lists, by id, to be superseded (`adopt`).
//!
//! Such a token's value is not known, so no fingerprint ever explains it: a place that holds it shows
//! "changed by hand", and nothing of the credential is revoked while one does (S1). It is kept like a
//! rotation that is as old as the token, so that the first token of ours is later, and is revoked by
//! the same rules as a retiring one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::breakage::{Breakage, broken};
use super::credential::{Rotation, Stage, Token};
use super::entry::Happened;
use super::outcome::ListedToken;
use super::turn::Turn;
use super::words::{Account, Moment, RotationId, TokenId, TokenName};

/// What became of an id that is listed for adoption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adoption {
    /// The account's complete list lacks it: it is another account's, or gone, or mistyped.
    NotListed,
    /// It is in the list, and rotad made it, here or elsewhere: it is not taken.
    Refused,
    /// It is to be revoked once it is superseded.
    Taken,
    /// It was taken, and is revoked or expired.
    Ended,
}

impl Turn<'_> {
    /// Whether a token made by hand is to be revoked, or may yet be found: it may be served anywhere.
    pub(super) fn expects_adoption(&self) -> bool {
        let open = |token: &TokenId| !matches!(self.credential.adoptions.get(token), Some(Adoption::Ended | Adoption::Refused));
        self.policy.adopt.iter().any(open)
    }

    /// Follows the configuration: what it no longer lists is withdrawn, what has ended is noted.
    pub(super) fn tidy_adoptions(&mut self, now: Moment) {
        let adopted: Vec<(TokenId, Adoption)> =
            self.credential.adoptions.iter().map(|(token, adoption)| (token.clone(), *adoption)).collect();
        for (token, adoption) in adopted {
            let recorded = self.credential.rotation_of(&token);
            let withdrawn = !self.policy.adopt.contains(&token);
            if withdrawn && !broken(Breakage::WithdrawalIgnored) {
                self.credential.adoptions.remove(&token);
                if adoption == Adoption::Taken {
                    self.withdraw(&token, recorded, now);
                }
            } else if adoption == Adoption::Taken && recorded.is_none() {
                self.credential.adoptions.insert(token, Adoption::Ended);
            }
        }
    }

    fn withdraw(&mut self, token: &TokenId, recorded: Option<RotationId>, now: Moment) {
        let Some(rotation) = recorded.and_then(|id| self.credential.rotations.remove(&id)) else { return };
        self.credential.orders.revoke.remove(token);
        let sent = if rotation.revocation_sent { "; a revocation had been sent, and may have been carried out" } else { "" };
        self.entry(now, Happened::AdoptionWithdrawn, |entry| {
            entry.rotation = recorded;
            entry.token = Some(token.clone());
            entry.detail = Some(format!("`adopt` no longer lists it: rotad does not revoke it{sent}"));
        });
    }

    /// What a complete list says of the ids that are listed for adoption and not taken yet.
    pub(super) fn match_adoptions(&mut self, account: &Account, tokens: &[ListedToken], now: Moment) {
        if *account != self.policy.account {
            return;
        }
        let policy = self.policy;
        for token in policy.adopt.iter() {
            let before = self.credential.adoptions.get(token).copied();
            if matches!(before, Some(Adoption::Taken | Adoption::Ended)) {
                continue;
            }
            let listed = tokens.iter().find(|listed| listed.id == *token);
            let ours = |listed: &ListedToken| listed.name.as_deref().and_then(TokenName::parse);
            let adoption = match listed {
                None => Adoption::NotListed,
                Some(listed) if ours(listed).is_some() && !broken(Breakage::AnothersAdopted) => Adoption::Refused,
                Some(_) => Adoption::Taken,
            };
            self.credential.adoptions.insert(token.clone(), adoption);
            match (adoption, listed) {
                (Adoption::Taken, Some(listed)) => self.adopt_by_hand(listed, now),
                _ if before == Some(adoption) => {}
                _ => {
                    let detail = match listed.and_then(ours) {
                        Some(name) => format!("`adopt` lists it, and rotad made it for `{}`: it is not taken over", name.owner),
                        None => format!(
                            "`adopt` lists it, and account `{}` has no such token: it is gone, or another account's; it is not revoked",
                            policy.account
                        ),
                    };
                    self.entry(now, Happened::AdoptionRefused, |entry| {
                        entry.token = Some(token.clone());
                        entry.detail = Some(detail);
                    });
                }
            }
        }
    }

    fn adopt_by_hand(&mut self, listed: &ListedToken, now: Moment) {
        let created_at = listed.created_at.min(now.wall);
        let mut random = [0_u8; 8];
        random.copy_from_slice(&Sha256::digest(listed.id.0.as_bytes())[..8]);
        let mint = |after| RotationId::mint(created_at, after, self.facts.installation, u64::from_be_bytes(random));
        let mut id = mint(None);
        while self.credential.rotations.contains_key(&id) {
            id = mint(Some(id));
        }
        let mut rotation = Rotation::requested(self.policy, self.facts.process, Moment { wall: created_at, steady: now.steady });
        rotation.stage = Stage::ByHand;
        rotation.token_type = Some(listed.token_type);
        let expires_at = listed.expires_at.unwrap_or(jiff::Timestamp::MAX);
        rotation.token = Some(Token { id: listed.id.clone(), created_at: listed.created_at, expires_at, fingerprint: None });
        self.credential.note_newest(id);
        self.credential.rotations.insert(id, rotation);
        let name = listed.shown_name();
        self.entry(now, Happened::AdoptionTaken, |entry| {
            entry.rotation = Some(id);
            entry.token = Some(listed.id.clone());
            entry.detail = Some(format!(
                "made by hand (`{name}`): revoked once every delivery has shown a later token for the grace period"
            ));
        });
    }
}
