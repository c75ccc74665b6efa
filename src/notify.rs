//! Tells systemd how the daemon is, where systemd asks for it (`Type=notify`, `WatchdogSec=`): by datagrams to the
//! socket that `NOTIFY_SOCKET` names, as `sd_notify(3)` describes them. Without that variable nothing is sent.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::debug;

use crate::clock;

/// How often the loop comes by where no watchdog is asked for.
const UNWATCHED: Duration = Duration::from_secs(3600);

/// The service manager, if there is one that wants to know.
#[derive(Debug)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As this process's environment says.
    pub fn from_environment() -> Self {
        let text = |name| std::env::var(name).ok();
        Self::new(std::env::var_os("NOTIFY_SOCKET"), text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id())
    }

    /// `usec`: the watchdog's time limit in microseconds; `pid`: whose it is, any process's if absent; `own`: this process.
    fn new(socket: Option<OsString>, usec: Option<String>, pid: Option<String>, own: u32) -> Self {
        let socket = socket.and_then(|name| match open(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                debug!(%error, "NOTIFY_SOCKET can't be used, so the service manager is told nothing");
                None
            }
        });
        let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
        let limit = usec.and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0 && ours).map(Duration::from_micros);
        Self { watchdog: limit.filter(|_| socket.is_some()).map(|limit| limit / 2), socket }
    }

    /// How often `alive` is to be said: twice within the watchdog's limit, as systemd advises.
    pub fn alive_every(&self) -> Duration {
        self.watchdog.unwrap_or(UNWATCHED)
    }

    /// Everything is open and works; also the end of a reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// What `systemctl status` shows, in one line.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_micros()));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            debug!(%error, message, "the service manager can't be told");
        }
    }
}

/// A socket that never waits, and the address: a path, or a name without a file where it begins with `@`.
fn open(name: &OsString) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: &str, usec: Option<&str>, pid: Option<&str>) -> Manager {
        Manager::new(Some(socket.into()), usec.map(str::to_owned), pid.map(str::to_owned), 7)
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_if_it_is_ours() {
        assert_eq!(manager("@rotad", Some("3000000"), None).alive_every(), Duration::from_millis(1500));
        assert_eq!(manager("@rotad", Some("3000000"), Some("7")).alive_every(), Duration::from_millis(1500));
        for (usec, pid) in [(Some("3000000"), Some("8")), (Some("0"), None), (Some("soon"), None), (None, None)] {
            assert_eq!(manager("@rotad", usec, pid).alive_every(), UNWATCHED, "{usec:?} {pid:?}");
        }
        assert_eq!(Manager::new(None, Some("3000000".to_owned()), None, 7).alive_every(), UNWATCHED);
    }

    #[test]
    fn a_name_without_a_file_is_reached_too() {
        let name = format!("rotad-test-{}", std::process::id());
        let receiver = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager(&format!("@{name}"), None, None).ready();
        let mut message = [0; 64];
        let length = receiver.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"READY=1");
    }
}
