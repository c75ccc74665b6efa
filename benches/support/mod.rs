//! What the benchmarks of whole processes share: the stand-in as a process of its own, and what the
//! kernel says of a process.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A child process that ends with the benchmark.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The stand-in, without limits of its own.
pub struct StandIn {
    pub url: String,
    pub admin_token: PathBuf,
    pub log: PathBuf,
    process: Process,
}

impl StandIn {
    /// Starts it with `accounts`; its files go into `directory`.
    pub fn start(directory: &Path, accounts: impl Iterator<Item = String>) -> Self {
        let (admin_token, log) = (directory.join("admin-token"), directory.join("api.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
        command.arg("stand-in").arg("--admin-token-file").arg(&admin_token).arg("--log").arg(&log);
        command.args(accounts.flat_map(|account| ["--account".to_owned(), account]));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the stand-in starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the stand-in says where it listens");
        let url = line.split_whitespace().last().expect("a URL at the line's end").to_owned();
        Self { url, admin_token, log, process: Process(child) }
    }

    pub fn process_id(&self) -> String {
        self.process.0.id().to_string()
    }

    /// How much is in its log, in bytes: a moment to count from.
    pub fn log_length(&self) -> usize {
        std::fs::metadata(&self.log).map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0))
    }

    /// How often each operation was carried out, by that part of its log.
    pub fn operations(&self, part: std::ops::Range<usize>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let text = std::fs::read(&self.log).expect("the stand-in's log");
        let lines = text[part].split(|byte| *byte == b'\n');
        for record in lines.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok()) {
            *counts.entry(record["operation"].as_str().unwrap_or("?").to_owned()).or_insert(0) += 1;
        }
        counts
    }
}

/// A line of a process's `/proc/<process>/status`, in KiB.
pub fn resident_kib(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux, and a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a number of KiB")
}

/// User and system time that a process has used, in seconds (the kernel counts hundredths).
pub fn processor_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux, and a process that runs");
    // The second field is a name in parentheses; user and system time are the 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
