//! Authorities and what they sign.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority of a test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, as a user would name it.
    pub file: PathBuf,
    _directory: tempfile::TempDir,
}

/// A server's certificate and key, in PEM form.
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, _directory: directory }
    }

    /// For 127.0.0.1, as every test connects.
    pub fn signs(&self) -> Signed {
        self.signs_with("127.0.0.1", |_| {})
    }

    pub fn signs_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        Signed { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}
