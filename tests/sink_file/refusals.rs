//! What is refused or told: links, other kinds of files, mounts, full disks, missing permissions.

use super::*;

#[tokio::test]
async fn a_missing_user_or_group_is_told_and_nothing_is_written() {
    let scene = Scene::new();
    let place = build(Target { group: Some("no-such-group".to_owned()), ..target(scene.at("token")) });
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Missing);
    assert!(failed.detail.contains("no group `no-such-group`"), "{failed}");
    assert_eq!(wrong(&place.check().await), [&failed]);
    assert!(scene.names("").is_empty());
}

#[tokio::test]
async fn no_symbolic_link_is_followed_anywhere() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("real/inner")).unwrap();
    fs::write(scene.at("victim"), "untouched").unwrap();
    symlink(scene.at("real"), scene.at("link")).unwrap();
    symlink(scene.at("victim"), scene.at("real/token")).unwrap();
    symlink(scene.at("victim"), scene.at("real/.other.rotad")).unwrap();
    symlink(scene.at("victim"), scene.at("real/.third.rotad-new")).unwrap();
    for (path, named) in [
        ("link/inner/token", scene.at("link")),
        ("link/token", scene.at("link")),
        ("real/token", scene.at("real/token")),
        ("real/other", scene.at("real/.other.rotad")),
        ("real/third", scene.at("real/.third.rotad-new")),
    ] {
        let failed = refusal(deliver(&raw(scene.at(path)), &etl(0)).await);
        assert_eq!(failed.reason, Reason::Unsuitable, "{path}: {failed}");
        assert!(failed.detail.contains(&format!("`{}`", named.display())), "{path}: {failed}");
    }
    assert_eq!(fs::read_to_string(scene.at("victim")).unwrap(), "untouched");
    assert!(scene.names("real/inner").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_swapped_for_a_link_leads_no_write_astray() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("real")).unwrap();
    fs::create_dir_all(scene.at("outside")).unwrap();
    symlink(scene.at("outside"), scene.at("trap")).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (done, real, trap) = (Arc::clone(&done), scene.at("real"), scene.at("trap"));
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &real, rustix::fs::CWD, &trap, flags).unwrap();
            }
        })
    };
    let place = raw(scene.at("real/token"));
    let mut written = 0;
    for number in 0..2000 {
        match deliver(&place, &etl(number)).await {
            WriteOutcome::Written => written += 1,
            WriteOutcome::Refused(failed) => assert_eq!(failed.reason, Reason::Unsuitable, "{failed}"),
            other => panic!("{other:?}"),
        }
        if number >= 200 && written > 0 {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    swapper.join().unwrap();
    assert!(written > 0, "the real directory was never met");
    assert!(scene.names("outside").is_empty(), "a write went through the link");
}

#[tokio::test]
async fn only_regular_files_are_read_and_none_is_waited_for() {
    let scene = Scene::new();
    assert!(Command::new("mkfifo").arg(scene.at("pipe")).status().unwrap().success());
    assert!(Command::new("mknod").arg(scene.at("device")).args(["c", "1", "5"]).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(scene.at("socket")).unwrap();
    fs::create_dir(scene.at("folder")).unwrap();
    for (name, kind) in [("pipe", "a named pipe"), ("device", "a device"), ("socket", "a socket"), ("folder", "a directory")] {
        let place = raw(scene.at(name));
        let failed = place.read(&question("etl")).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Unsuitable, "{name}: {failed}");
        assert!(failed.detail.contains(&format!("is {kind}")), "{name}: {failed}");
        assert_eq!(wrong(&place.check().await), [&failed]);
    }
    let large = fs::File::create(scene.at("large")).unwrap();
    large.set_len((1 << 20) + 1).unwrap();
    let failed = raw(scene.at("large")).read(&question("etl")).await.unwrap_err();
    assert!(failed.detail.contains("larger than 1 MiB"), "{failed}");
}

#[tokio::test]
async fn a_missing_directory_is_told() {
    let scene = Scene::new();
    let place = raw(scene.at("absent/token"));
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Missing);
    assert!(failed.detail.contains("absent` does not exist: create it"), "{failed}");
    assert_eq!(wrong(&place.check().await), [&failed]);
}

#[tokio::test]
async fn a_file_that_is_a_mount_point_is_refused_and_says_what_to_mount() {
    let scene = Scene::new();
    fs::write(scene.at("source"), "").unwrap();
    fs::write(scene.at("token"), "").unwrap();
    let _mounted = Mounted::new(&["--bind", scene.at("source").to_str().unwrap()], &scene.at("token"));
    let place = raw(scene.at("token"));
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Unsuitable);
    assert!(failed.detail.contains("is a mount point") && failed.detail.contains("mount its directory"), "{failed}");
    assert_eq!(wrong(&place.check().await), [&failed]);
    assert_eq!(fs::read_to_string(scene.at("source")).unwrap(), "");
    assert_eq!(scene.names(""), ["source", "token"]);
}

#[tokio::test]
async fn a_read_only_file_system_is_told() {
    let scene = Scene::new();
    fs::create_dir(scene.at("mount")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "ro,size=64k", "rotad-test"], &scene.at("mount"));
    let place = raw(scene.at("mount/token"));
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Forbidden);
    assert!(failed.detail.contains("is read-only"), "{failed}");
    assert_eq!(wrong(&place.check().await).len(), 1);
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_value_and_nothing_else_and_heals() {
    let scene = Scene::new();
    fs::create_dir(scene.at("mount")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=64k", "rotad-test"], &scene.at("mount"));
    let place = raw(scene.at("mount/token"));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    let filler = scene.at("mount/filler");
    // One page less than full: the marker fits, the value does not. Then none at all.
    for spare in [4096, 0] {
        let status = rustix::fs::statvfs(scene.at("mount")).unwrap();
        fs::write(&filler, vec![0; usize::try_from(status.f_bavail * status.f_bsize - spare).unwrap()]).unwrap();
        let failed = refusal(deliver(&place, &etl(1)).await);
        assert_eq!(failed.reason, Reason::Full, "{failed}");
        assert!(failed.detail.contains("make room"), "{failed}");
        assert_eq!(rotation_shown(&place).await, Some(etl(0).rotation));
        assert_eq!(scene.names("mount"), [".token.rotad", "filler", "token"]);
        fs::remove_file(&filler).unwrap();
    }
    assert_eq!(deliver(&place, &etl(1)).await, WriteOutcome::Written);
    assert_eq!(rotation_shown(&place).await, Some(etl(1).rotation));
}

/// Runs `test` on threads that, although root, have no right to override permissions or change owners.
fn without_capabilities(test: impl Future<Output = ()> + Send + 'static) {
    let drop_them = || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).unwrap();
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().on_thread_start(drop_them).build();
    let runtime = runtime.unwrap();
    runtime.block_on(async move { tokio::spawn(test).await.unwrap() });
}

#[test]
fn a_missing_permission_on_the_directory_is_told_with_its_remedy() {
    let scene = Scene::new();
    fs::create_dir(scene.at("theirs")).unwrap();
    fs::set_permissions(scene.at("theirs"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(scene.at("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    let path = scene.at("theirs/token");
    without_capabilities(async move {
        let place = raw(path);
        let failed = refusal(deliver(&place, &etl(0)).await);
        assert_eq!(failed.reason, Reason::Forbidden);
        assert!(failed.detail.contains("user 0 lacks a permission") && failed.detail.contains("`rwx`"), "{failed}");
        assert_eq!(wrong(&place.check().await)[0].reason, Reason::Forbidden);
    });
    assert!(scene.names("theirs").is_empty());
}

#[test]
fn a_foreign_owner_needs_a_right_that_is_named_and_before_it_nothing_is_written() {
    let scene = Scene::new();
    let path = scene.at("token");
    without_capabilities(async move {
        for (owner, group) in [(Some("nobody".to_owned()), None), (None, Some("4711".to_owned()))] {
            let place = build(Target { owner, group, ..target(path.clone()) });
            let failed = refusal(deliver(&place, &etl(0)).await);
            assert_eq!(failed.reason, Reason::Forbidden);
            assert!(failed.detail.contains("CAP_CHOWN") && failed.detail.contains("SupplementaryGroups="), "{failed}");
            assert_eq!(wrong(&place.check().await)[0].reason, Reason::Forbidden);
        }
    });
    assert!(scene.names("").is_empty());
}

#[test]
fn a_value_that_could_not_be_read_back_is_told() {
    let scene = Scene::new();
    let path = scene.at("token");
    fs::write(&path, "theirs").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    without_capabilities(async move {
        let failed = raw(path).read(&question("etl")).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Forbidden);
        assert!(failed.detail.contains("may not read") && failed.detail.contains("0640"), "{failed}");
    });
}

#[tokio::test]
async fn a_check_finds_directories_that_anybody_may_write_to_and_second_names() {
    let scene = Scene::new();
    fs::create_dir(scene.at("open")).unwrap();
    let place = raw(scene.at("open/token"));
    let findings = place.check().await;
    assert!(wrong(&findings).is_empty(), "{findings:?}");
    assert!(matches!(&findings[..], [Finding::Fine(_), Finding::Unknowable(_)]), "{findings:?}");

    fs::set_permissions(scene.at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(wrong(&place.check().await)[0].detail.contains("everybody may replace"), "{:?}", place.check().await);
    fs::set_permissions(scene.at("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(wrong(&place.check().await).is_empty());

    fs::write(scene.at("open/token"), "").unwrap();
    fs::hard_link(scene.at("open/token"), scene.at("open/second")).unwrap();
    assert!(wrong(&place.check().await)[0].detail.contains("2 names"), "{:?}", place.check().await);
    assert_eq!(scene.names("open"), ["second", "token"], "a check writes nothing");
}

#[tokio::test]
async fn a_sink_of_another_host_is_neither_read_nor_written() {
    let scene = Scene::new();
    let elsewhere = Sink::new(&Config { host: Some("another-host.example".to_owned()) });
    let place = elsewhere.place(target(scene.at("token"))).unwrap();
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert!(failed.detail.contains("belongs to the host `another-host.example`"), "{failed}");
    let version = raw(scene.at("token")).read(&question("etl")).await.unwrap().version;
    assert_eq!(place.write(&version, &etl(0).payload()).await, WriteOutcome::Refused(failed));

    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let here = Sink::new(&Config { host: Some(own) }).place(target(scene.at("token"))).unwrap();
    assert_eq!(deliver(&here, &etl(0)).await, WriteOutcome::Written);
}

#[test]
fn paths_and_modes_that_can_never_work_are_rejected() {
    let sink = Sink::new(&Config::default());
    let long = format!("/run/{}", "n".repeat(244));
    for path in ["token", "/", "/run/", "/run/../token", "/run/./token", "/run//token", "/run/.token.rotad", &long] {
        let failed = sink.place(target(path.into())).err().unwrap_or_else(|| panic!("`{path}` was taken"));
        assert_eq!(failed.reason, Reason::Rejected, "{path}: {failed}");
    }
    for mode in [0o602, 0o200, 0o4600, 0o000] {
        assert!(sink.place(Target { mode, ..target("/run/token".into()) }).is_err(), "{mode:o}");
    }
    let longest = format!("/run/{}", "n".repeat(243));
    assert_eq!(sink.place(target(longest.clone().into())).unwrap().id().as_str(), format!("file:{longest}"));
}
