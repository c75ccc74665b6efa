//! A journal that can't be written: nothing is issued then, and it goes on by itself once it can.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::plain::{FAST, Plain, SLOW};

/// A small file system of its own, for root to mount.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Self {
        let disk = Self(at);
        disk.call("mount", &["-t", "tmpfs", "-o", "size=2m", "rotad-test"]);
        disk
    }

    /// One that can turn read-only under whoever has files open there, as a failing disk has it.
    fn mount_image(image: &Path, at: PathBuf) -> Self {
        if !image.exists() {
            std::fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
            call(Command::new("mkfs.ext4").arg("-q").arg(image));
        }
        call(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(&at));
        Self(at)
    }

    fn call(&self, program: &str, arguments: &[&str]) {
        call(Command::new(program).args(arguments).arg(&self.0));
    }

    /// Leaves no room at all.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        for block in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

fn call(command: &mut Command) {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs root, for a small file system: {command:?}: {told}");
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_at_the_start_is_said_in_a_sentence() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let disk = Disk::mount(plain.path("journal"));
    disk.fill();
    plain.ask(&["run"]).complains(1, &["full", "make room", "journal"]);
    disk.make_room();
    disk.call("mount", &["-o", "remount,ro"]);
    plain.ask(&["run"]).complains(1, &["read-only", "journal"]);
    assert_eq!(plain.issued(), 0);
}

#[test]
fn a_journal_that_became_read_only_is_refused_with_what_to_do() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let disk = Disk::mount(plain.path("journal"));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the first revocation", || plain.revoked() >= 1);
    rotad.stop();
    disk.call("mount", &["-o", "remount,ro"]);
    let (issued, revoked) = (plain.issued(), plain.revoked());
    plain.ask(&["run"]).complains(1, &["read-only", "remount it"]);
    plain.ask(&["status"]).complains(1, &["read-only", "remount its file system"]);
    assert_eq!((plain.issued(), plain.revoked()), (issued, revoked));
    assert!(plain.serves_live("etl"));
    disk.call("mount", &["-o", "remount,rw"]);
    let mut rotad = plain.rotad();
    plain.until("the next rotation", || plain.issued() > issued && plain.revoked() > revoked);
    plain.has_recovered("etl");
    rotad.stop();
}

#[test]
fn a_full_file_system_of_a_sink_keeps_the_old_token_alive_and_is_told() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let disk = Disk::mount(plain.path("sinks"));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the first revocation", || plain.revoked() >= 1);
    disk.fill();
    plain.until("the refusal", || plain.line("etl")["deliveries"][0]["trouble"].to_string().contains("no space is left"));
    let (served, revoked) = (plain.served("etl"), plain.revoked());
    // Two due times pass.
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!((plain.served("etl"), plain.revoked()), (served, revoked), "{}", plain.log());
    assert!(plain.serves_live("etl"));
    // A delivery that fails mints nothing by itself.
    assert!(plain.live().len() <= 3, "{:?}", plain.live());
    let trouble = plain.line("etl")["deliveries"][0]["trouble"].to_string();
    assert!(trouble.contains("make room"), "{trouble}");
    disk.make_room();
    plain.until("the delivery", || plain.revoked() > revoked && plain.serves_live("etl"));
    plain.has_recovered("etl");
    rotad.stop();
}

#[test]
fn while_the_disk_is_full_nothing_is_issued_and_room_is_all_it_takes() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let disk = Disk::mount(plain.path("journal"));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("readiness", || plain.ready().0 == 200);
    disk.fill();
    plain.until("the end of readiness", || plain.ready().0 == 503);
    let reason = plain.ready().1;
    assert!(reason.contains("journal can't be written"), "{reason}");
    let (issued, revoked) = (plain.issued(), plain.revoked());
    // Two due times pass.
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!((plain.issued(), plain.revoked()), (issued, revoked), "{}", plain.log());
    assert_eq!(plain.ready().0, 503);
    assert_eq!(plain.metric("rotad_revocations_frozen{reason=\"journal_unwritable\"}"), Some(1.0));
    assert!(plain.serves_live("etl"));
    assert!(plain.log().contains("make room"), "{}", plain.log());
    disk.make_room();
    plain.until("readiness", || plain.ready().0 == 200);
    plain.until("the next rotation", || plain.issued() > issued && plain.revoked() > revoked);
    plain.has_recovered("etl");
    rotad.stop();
}

#[test]
fn a_journal_that_turns_read_only_while_it_runs_stops_the_work_until_it_can_be_written() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let image = plain.path("image");
    let disk = Disk::mount_image(&image, plain.path("journal"));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the first revocation", || plain.revoked() >= 1);
    // The kernel's own way to have a disk fail.
    disk.call("mount", &["-o", "remount,abort"]);
    plain.until("the end of readiness", || plain.ready().0 == 503);
    let reason = plain.ready().1;
    assert!(reason.contains("journal can't be written"), "{reason}");
    let (issued, revoked) = (plain.issued(), plain.revoked());
    // Two due times pass.
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!((plain.issued(), plain.revoked()), (issued, revoked), "{}", plain.log());
    assert_eq!(plain.metric("rotad_revocations_frozen{reason=\"journal_unwritable\"}"), Some(1.0));
    assert!(plain.serves_live("etl"));
    assert!(plain.log().contains("look at the disk"), "{}", plain.log());
    rotad.stop();
    drop(disk);
    let _disk = Disk::mount_image(&image, plain.path("journal"));
    let mut rotad = plain.rotad();
    plain.until("the next rotation", || plain.issued() > issued && plain.revoked() > revoked);
    plain.has_recovered("etl");
    rotad.stop();
}

#[test]
fn a_journal_that_is_taken_away_stops_the_work_until_it_is_back() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("readiness", || plain.ready().0 == 200);
    std::fs::rename(plain.path("journal/journal.db"), plain.path("journal/away")).unwrap();
    plain.until("the end of readiness", || plain.ready().0 == 503);
    let issued = plain.issued();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(plain.issued(), issued, "{}", plain.log());
    assert!(plain.log().contains("deleted or replaced while rotad runs"), "{}", plain.log());
    std::fs::rename(plain.path("journal/away"), plain.path("journal/journal.db")).unwrap();
    plain.until("the next rotation", || plain.issued() > issued);
    assert_eq!(plain.ready().0, 200);
    plain.has_recovered("etl");
    rotad.stop();
}
