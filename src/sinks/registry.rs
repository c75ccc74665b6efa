//! Every kind of sink, once: the one place that a new one is added to, beside its own file.

use std::sync::Arc;

use super::{Kind, Place, aws, file, vault};
use crate::rotation::Failed;

/// A configured sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    Aws(aws::Config),
    File(file::Config),
    Vault(vault::Config),
}

/// Where a delivery goes in its sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Aws(aws::Target),
    File(file::Target),
    Vault(vault::Target),
}

/// A sink that is ready to be used by all of its places.
#[derive(Clone)]
pub enum Store {
    Aws(Arc<aws::Store>),
    File(Arc<file::Sink>),
    Vault(Arc<vault::Store>),
}

impl Config {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Aws(_) => Kind::Aws,
            Self::File(_) => Kind::File,
            Self::Vault(_) => Kind::Vault,
        }
    }
}

impl Store {
    /// Makes the sink ready; nothing is sent yet.
    ///
    /// # Errors
    /// What can't be used of its configuration: an unreadable certificate, say.
    pub async fn open(config: &Config) -> Result<Self, Failed> {
        Ok(match config {
            Config::Aws(config) => Self::Aws(aws::Store::new(config.clone())?),
            Config::File(config) => Self::File(file::Sink::new(config)),
            Config::Vault(config) => Self::Vault(vault::Store::open(config.clone()).await?),
        })
    }

    /// One place in it.
    ///
    /// # Errors
    /// A target that this sink can't have; the configuration lets none through.
    pub fn place(&self, target: &Target) -> Result<Arc<dyn Place>, Failed> {
        let mismatch = || Failed::new(crate::rotation::Reason::Unsuitable, "the delivery is not of its sink's kind");
        Ok(match (self, target) {
            (Self::Aws(store), Target::Aws(target)) => aws::place(store, target),
            (Self::File(sink), Target::File(target)) => Arc::new(sink.place(target.clone())?),
            (Self::Vault(store), Target::Vault(target)) => store.place(target.clone())?,
            (Self::Aws(_) | Self::File(_) | Self::Vault(_), _) => return Err(mismatch()),
        })
    }
}
