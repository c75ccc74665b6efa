//! The real binary as a user and an operator meet it: bad input, probes, full disks, stops, reloads,
//! lost journals, and what is told of all that.

mod support {
    pub mod plain;
}

mod cli {
    mod disk;
    mod journal;
    mod online;
    mod refusals;
    mod reloading;
    mod stopping;
    mod watching;
}
