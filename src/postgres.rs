//! PostgreSQL's wire, as far as its two uses share it: MotherDuck's endpoint for `verify = "connect"`, and the journal.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::cause::innermost;
use crate::secret::{Secret, presentable};

/// What is shown of somebody else's text.
pub const SAID_MAX: usize = 120;

/// TLS that verifies who answers: by the authorities of the file alone, or by the system's. `what` is verified, and `key`
/// names the file in the configuration: both are for messages.
///
/// # Errors
/// The file can't be used, or the system has no certificates.
pub fn verified_tls(ca_cert: Option<&Path>, what: &str, key: &str) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS for {what}: {error}"))?;
    Ok(builder.with_root_certificates(roots(ca_cert, what, key)?).with_no_client_auth())
}

fn roots(ca_cert: Option<&Path>, what: &str, key: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca_cert {
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| format!("`{key}` `{}` can't be used: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"it holds no certificate in PEM form"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(format!("the system has no CA certificates for {what}: install `ca-certificates`, or set `{key}`"));
            }
        }
    }
    Ok(roots)
}

/// The innermost message of an error, without the secret that was sent: the outer ones say less.
pub fn cause(error: &tokio_postgres::Error, known: &[&Secret]) -> String {
    let cause = innermost(error);
    if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) {
        return "it closed the connection".to_owned();
    }
    presentable(&cause.to_string(), SAID_MAX, known)
}
