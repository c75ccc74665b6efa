//! Orders of persons on their way to a credential's next turn.

use std::sync::PoisonError;

use tokio::sync::oneshot;

use super::Engine;
use crate::rotation::{CredentialName, Order};

/// An order, who gives it, and where its answer goes.
pub struct Ordered {
    pub order: Order,
    /// Who gives it, for the history: a user's number and name.
    pub by: String,
    pub answer: Answer,
}

/// Answers an order: that it is recorded, or why it is not taken. Dropped unanswered, the order is not taken.
pub type Answer = oneshot::Sender<Result<(), String>>;

impl Engine {
    /// Leaves an order for the next turn of its credential.
    pub(super) fn leave_order(&self, name: CredentialName, ordered: Ordered) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().push(ordered);
    }

    /// The orders that wait for the credential's turn, oldest first.
    pub(super) fn take_orders(&self, name: &CredentialName) -> Vec<Ordered> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(name).unwrap_or_default()
    }
}
