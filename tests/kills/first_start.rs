//! Killed in the very first start, when there is no journal yet: the next one begins, or goes on, as if it were the first.

use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;

use rotad::fail_point::Point;

use crate::plain::{FAST, Plain};

/// Everything that a first start passes on its way to a token that a file serves, and to the end of its first turn.
const POINTS: [Point; 22] = [
    Point::JournalMade,
    Point::JournalOpened,
    Point::ScheduleLoaded,
    Point::TurnBegun,
    Point::BeforeSave,
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::BeforeList,
    Point::AfterList,
    Point::BeforeRead,
    Point::AfterRead,
    Point::BeforeIssue,
    Point::AfterIssue,
    Point::BeforeVerify,
    Point::AfterVerify,
    Point::BeforeWrite,
    Point::FileClaimed,
    Point::FilePrepared,
    Point::FileMarked,
    Point::FileLanded,
    Point::AfterWrite,
    Point::TurnSaved,
];
/// So many at a time: each waits most of its time.
const AT_A_TIME: usize = 6;

#[test]
fn killed_in_its_very_first_start_it_begins_again_and_leaves_nothing_behind() {
    let left = Mutex::new(POINTS.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(point) = next else { break };
                    killed_at(point);
                }
            });
        }
    });
}

fn killed_at(point: Point) {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_failing_at(&format!("{point:?}:1:kill"));
    let mut ended = None;
    plain.until("the kill", || {
        ended = rotad.ended();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(9), "it did not end at {point:?}:\n{}", plain.log());
    plain.keeps_its_files_secret();
    let mut rotad = plain.rotad();
    plain.until("the first delivery", || plain.served("etl").is_some());
    let before = plain.revoked();
    plain.until("two revocations", || {
        plain.serves_nothing_dead("etl");
        plain.revoked() >= before + 2
    });
    plain.has_recovered("etl");
    rotad.stop();
}
