//! The timed log of everything that the stand-in did.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Operation;
use crate::rotation::Fingerprint;

/// The most records kept in memory; the file has them all.
const KEPT_MAX: usize = 200_000;

/// One request, at the moment at which it took effect (or would have). Never a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1 without gaps.
    pub sequence: u64,
    /// Nanoseconds since 1970 by the machine's wall clock, whatever the stand-in's own time.
    pub at_ns: i64,
    /// The stand-in's own time.
    pub time: Timestamp,
    pub operation: Operation,
    /// The account in question, as the request named it.
    pub account: Option<String>,
    /// Who asked; `None` for a caller without a live token.
    pub caller: Option<String>,
    pub token_id: Option<String>,
    pub token_name: Option<String>,
    /// SHA-256 of the token's value, for a token that was created or revoked.
    pub fingerprint: Option<Fingerprint>,
    /// By the stand-in's own time.
    pub expires_at: Option<Timestamp>,
    /// The status that was decided on; the caller may have seen another, or none, if there is a `fault`.
    pub status: Option<u16>,
    /// Whether something was created, changed or revoked.
    pub effect: bool,
    /// The fault that the request met.
    pub fault: Option<String>,
}

#[derive(Debug)]
pub(super) struct Log {
    records: VecDeque<Record>,
    last: u64,
    file: Option<File>,
}

impl Log {
    pub(super) fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Self { records: VecDeque::new(), last: 0, file })
    }

    /// Numbers the record and keeps it; a line that can't be written is told once on the log of the process.
    pub(super) fn add(&mut self, mut record: Record) {
        self.last += 1;
        record.sequence = self.last;
        if let Some(file) = &mut self.file
            && let Err(error) = serde_json::to_vec(&record).map_err(std::io::Error::from).and_then(|mut line| {
                line.push(b'\n');
                file.write_all(&line)
            })
        {
            tracing::error!(%error, "the stand-in's log can't be written any more");
            self.file = None;
        }
        if self.records.len() == KEPT_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(super) fn after(&self, sequence: u64) -> Vec<Record> {
        let from = self.records.partition_point(|record| record.sequence <= sequence);
        self.records.range(from..).cloned().collect()
    }
}
