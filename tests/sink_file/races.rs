//! Crashes, writers that race, readers beside them, and operations that hang.

use super::*;

#[tokio::test]
async fn what_a_crash_left_is_removed_by_the_next_read_and_foreign_files_are_not() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    for name in [".token.rotad-new", ".token.rotad-mark"] {
        fs::write(scene.at(name), "half a val").unwrap();
    }
    assert_eq!(shows(&place).await, Shows::Nothing { owner: None });
    assert!(scene.names("").is_empty(), "{:?}", scene.names(""));

    fs::write(scene.at(".token.rotad-mark"), "half a mark").unwrap();
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    assert_eq!(scene.names(""), [".token.rotad", "token"]);

    for foreign in [".token.rotad-new", ".token.rotad-mark"] {
        fs::write(scene.at(foreign), "somebody else's").unwrap();
        std::os::unix::fs::chown(scene.at(foreign), Some(NOBODY), None).unwrap();
        let failed = refusal(deliver(&place, &etl(1)).await);
        assert_eq!(failed.reason, Reason::Unsuitable);
        assert!(failed.detail.contains("not a file of ours"), "{failed}");
        assert_eq!(fs::read_to_string(scene.at(foreign)).unwrap(), "somebody else's");
        assert_eq!(rotation_shown(&place).await, Some(etl(0).rotation), "the place itself can still be read");
        assert_eq!(scene.names(""), [".token.rotad", foreign, "token"]);
        fs::remove_file(scene.at(foreign)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_one_wins_and_no_reader_sees_half_a_value() {
    let scene = Scene::new();
    let path = scene.at("token");
    let first = raw(path.clone());
    assert_eq!(deliver(&first, &etl(0)).await, WriteOutcome::Written);
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (done, path) = (Arc::clone(&done), path.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let text = fs::read_to_string(&path).expect("the value is always there");
                let number = text.split('-').nth(2).and_then(|number| number.parse().ok()).expect("the value is whole");
                assert_eq!(text, etl(number).value.expose());
            }
        })
    };
    // Two places of two sinks share nothing in this process, like two processes.
    let second = raw(path);
    for round in 1..100 {
        let version = first.read(&question("etl")).await.unwrap().version;
        let deliveries = [etl(2 * round), etl(2 * round + 1)];
        let payloads = [deliveries[0].payload(), deliveries[1].payload()];
        let (one, other) = tokio::join!(first.write(&version, &payloads[0]), second.write(&version, &payloads[1]));
        let winner = match (one, other) {
            (WriteOutcome::Written, WriteOutcome::Conflict) => &deliveries[0],
            (WriteOutcome::Conflict, WriteOutcome::Written) => &deliveries[1],
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(rotation_shown(&second).await, Some(winner.rotation), "round {round}");
        assert_eq!(scene.names(""), [".token.rotad", "token"]);
    }
    done.store(true, Ordering::SeqCst);
    reader.join().unwrap();
}

/// A reader removes left-over files, and a writer's file is unlocked for a moment after it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_clean_up_never_disturb_a_living_writer() {
    let scene = Scene::new();
    fs::create_dir(scene.at("mount")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "rotad-test"], &scene.at("mount"));
    let path = scene.at("mount/token");
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (done, place) = (Arc::clone(&done), raw(path.clone()));
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                place.read(&question("etl")).await.unwrap();
            }
        })
    };
    let place = raw(path);
    for number in 0..3000 {
        assert_eq!(deliver(&place, &etl(number)).await, WriteOutcome::Written, "{number}");
    }
    done.store(true, Ordering::SeqCst);
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_is_given_up_keeps_the_place_busy_and_never_lands_later() {
    let scene = Scene::new();
    let sink = Sink::with_limit(&Config::default(), Duration::from_millis(300));
    let place = sink.place(target(scene.at("token"))).unwrap();
    let version = place.read(&question("etl")).await.unwrap().version;
    // The lock of a writer that makes no progress: our write waits for it in the kernel.
    let hung = fs::File::create(scene.at(".token.rotad-new")).unwrap();
    hung.lock().unwrap();
    assert_eq!(refusal(place.write(&version, &etl(0).payload()).await).reason, Reason::TimedOut);
    assert_eq!(refusal(place.write(&version, &etl(1).payload()).await).reason, Reason::Busy);
    assert_eq!(place.read(&question("etl")).await.unwrap_err().reason, Reason::Busy);
    assert!(matches!(&place.check().await[..], [Finding::Wrong(failed)] if failed.reason == Reason::Busy));

    drop(hung);
    let after = loop {
        match place.read(&question("etl")).await {
            Ok(reading) => break reading,
            Err(failed) => assert_eq!(failed.reason, Reason::Busy, "{failed}"),
        }
    };
    assert_eq!(after.shows, Shows::Nothing { owner: None }, "what was given up did not land");
    assert!(scene.names("").is_empty(), "{:?}", scene.names(""));
    assert_eq!(place.write(&after.version, &etl(2).payload()).await, WriteOutcome::Written);
    assert_eq!(rotation_shown(&place).await, Some(etl(2).rotation));
}

/// Where a writer that is killed writes to; unset when this program runs as a test.
const VICTIM: &str = "ROTAD_TEST_FILE_TO_WRITE";

/// The number of the delivery that the file holds whole, if it holds any.
async fn number_held(place: &FilePlace) -> Option<u32> {
    let reading = place.read(&question("etl")).await.unwrap();
    let value = reading.value?;
    let number = value.expose().split('-').nth(2).unwrap().parse().unwrap();
    assert_eq!(value.expose(), etl(number).value.expose(), "the value is whole");
    let Shows::Value { rotation, .. } = reading.shows else { panic!("{:?}", reading.shows) };
    assert_eq!(rotation, Some(etl(number).rotation), "the marker explains the value");
    Some(number)
}

/// By itself: a few deliveries in a row. As the child of the next test: without an end.
#[tokio::test]
async fn deliveries_follow_each_other() {
    let victim = std::env::var_os(VICTIM);
    let scene = Scene::new();
    let place = raw(victim.clone().map_or_else(|| scene.at("token"), PathBuf::from));
    let first = number_held(&place).await.map_or(0, |number| number + 1);
    for number in first.. {
        assert_eq!(deliver(&place, &etl(number)).await, WriteOutcome::Written);
        assert_eq!(number_held(&place).await, Some(number));
        if victim.is_none() && number == 20 {
            break;
        }
    }
}

#[tokio::test]
async fn a_writer_killed_at_any_moment_leaves_a_whole_value_that_its_marker_explains() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    let (mut killed_while_writing, mut held) = (0, None);
    for round in 0..200_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "races::deliveries_follow_each_other", "--nocapture"])
            .env(VICTIM, scene.at("token"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while fs::read(scene.at("token")).ok() == held {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 370 % 9000));
        child.kill().unwrap();
        child.wait().unwrap();
        killed_while_writing += u32::from(scene.names("").iter().any(|name| name.ends_with("-new")));
        let number = number_held(&place).await.expect("there was a value before");
        assert_eq!(scene.names(""), [".token.rotad", "token"], "the read removed what the crash left");
        assert_eq!(deliver(&place, &etl(number + 1)).await, WriteOutcome::Written);
        held = fs::read(scene.at("token")).ok();
        if round >= 40 && killed_while_writing >= 5 {
            break;
        }
    }
    eprintln!("{killed_while_writing} kills hit the middle of a write");
    assert!(killed_while_writing >= 5, "hardly a kill hit the middle of a write: the test shows nothing");
}
