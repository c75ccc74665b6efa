//! Logs: one line per step to standard error, as JSON or text, and never a secret's value.
//!
//! What libraries say is capped whatever the filter asks for: at finer levels HTTP and AWS clients log
//! what goes over the wire, and `vaultrs` and `rustify` log answers at `ERROR`.

use std::io::IsTerminal;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::rotation::{CredentialName, Entry};

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line, fields at the top level.
    Json,
    #[default]
    Text,
}

#[derive(Debug, Error)]
pub enum LoggingError {
    #[error(
        "the log filter `{filter}` can't be understood: {problem}; a level (`error`, `warn`, `info`, `debug`, `trace`) or \
         pairs such as `info,rotad::engine=debug` would be right"
    )]
    Filter { filter: String, problem: String },
    #[error("logging was set up before")]
    SetUpBefore,
}

/// Starts logging to standard error, for the whole process. `filter` is that of the command line; without one
/// `RUST_LOG` is asked, and without that everything from `INFO` up is logged.
///
/// # Errors
/// A filter that can't be parsed, or a second call.
pub fn start(format: Format, filter: Option<&str>) -> Result<(), LoggingError> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let filter = filter.or(from_environment.as_deref()).filter(|filter| !filter.trim().is_empty()).unwrap_or("info");
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    subscriber(format, filter, colours, std::io::stderr)?.try_init().map_err(|_| LoggingError::SetUpBefore)
}

/// What `start` starts, writing to `writer`.
///
/// # Errors
/// A filter that can't be parsed.
pub fn subscriber<W>(
    format: Format,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), problem: error.to_string() })?;
    let allowed = wanted.and(filter_fn(is_allowed));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        Format::Text => lines.with_ansi(colours).boxed(),
    };
    Ok(tracing_subscriber::registry().with(lines.with_filter(allowed)))
}

/// Our own lines at any level; those of libraries from `INFO` up, and of those that log answers none.
fn is_allowed(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    let finest = match library {
        "rotad" => LevelFilter::TRACE,
        "vaultrs" | "rustify" | "rustify_derive" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    };
    *metadata.level() <= finest
}

/// Logs one line of a credential's history: `WARN` if a person should know of it, otherwise `INFO`.
pub fn step(credential: &CredentialName, entry: &Entry) {
    let rotation = entry.rotation.map(tracing::field::display);
    let token = entry.token.as_ref().map(tracing::field::display);
    let delivery = entry.delivery.as_ref().map(tracing::field::display);
    let reason = entry.reason.map(|reason| reason.as_str());
    let detail = entry.detail.as_deref();
    let what = entry.what.as_str();
    // The level of an event is part of its static description, so there are two of them.
    if entry.what.is_warning() {
        tracing::warn!(target: "rotad::step", %credential, rotation, token, delivery, reason, detail, "{what}");
    } else {
        tracing::info!(target: "rotad::step", %credential, rotation, token, delivery, reason, detail, "{what}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;

    use super::*;
    use crate::rotation::{DeliveryId, Happened, InstallationId, Reason, RotationId, TokenId};

    /// What was written, for a look at it.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn entry(what: Happened) -> Entry {
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        Entry {
            at,
            what,
            rotation: Some(RotationId::mint(at, None, InstallationId(7), 0)),
            token: Some(TokenId("5f0c".to_owned())),
            delivery: Some(DeliveryId::new("file:/run/etl/token")),
            reason: Some(Reason::Forbidden),
            detail: Some("`/run/etl` can't be written".to_owned()),
            by: None,
        }
    }

    #[test]
    fn a_step_is_one_line_of_json_with_everything_that_it_is_about() {
        let text = logged(Format::Json, "info", || step(&"etl".parse().unwrap(), &entry(Happened::WriteRefused)));
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        assert_eq!((field("level"), field("message")), ("WARN".to_owned(), "write_refused".to_owned()));
        assert_eq!((field("credential"), field("token"), field("reason")), ("etl".into(), "5f0c".into(), "forbidden".into()));
        assert_eq!((field("delivery"), field("target")), ("file:/run/etl/token".into(), "rotad::step".into()));
        assert!(field("rotation").ends_with("00000007") && field("detail").contains("can't be written"));
    }

    #[test]
    fn the_ordinary_course_is_logged_at_info_and_absent_fields_are_left_out() {
        let bare = Entry { token: None, delivery: None, reason: None, detail: None, ..entry(Happened::Promoted) };
        let text = logged(Format::Text, "info", || step(&"etl".parse().unwrap(), &bare));
        assert!(text.contains(" INFO ") && text.contains("promoted") && text.contains("credential=etl"), "{text}");
        assert!(!text.contains("token=") && !text.contains("reason="), "{text}");
        assert_eq!(logged(Format::Text, "warn", || step(&"etl".parse().unwrap(), &bare)), "");
    }

    #[test]
    fn libraries_stay_quiet_whatever_the_filter_asks_for() {
        let filter = "trace,vaultrs=trace,rustify=trace,hyper::proto=trace,aws_smithy_runtime=trace";
        let text = logged(Format::Text, filter, || {
            tracing::error!(target: "vaultrs::api", "Detected errors in API request: hunter2");
            tracing::error!(target: "rustify::client", "hunter2");
            tracing::trace!(target: "hyper::proto::h1", "hunter2");
            tracing::debug!(target: "aws_smithy_runtime::client", "hunter2");
            tracing::trace!(target: "rotadish", "hunter2");
            tracing::warn!(target: "aws_config", "kept");
            tracing::trace!(target: "rotad::engine", "kept too");
        });
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.matches("kept").count(), 2, "{text}");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_with_what_would_be_right() {
        let Err(error) = subscriber(Format::Text, "rotad=loud", false, std::io::sink) else { panic!("it was accepted") };
        assert!(error.to_string().starts_with("the log filter `rotad=loud` can't be understood"), "{error}");
    }
}
