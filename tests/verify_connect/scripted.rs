//! A Postgres endpoint of a test's own: it speaks the wire as far as letting in and answering goes, and lies as it is told.

use std::sync::{Arc, Mutex};

use rotad::motherduck::Endpoint;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Signed;

/// What it does with whoever comes.
#[derive(Debug, Clone)]
pub enum Script {
    /// Answers `N` to the question for TLS.
    NoTls,
    /// Says nothing once TLS is there.
    Silence,
    /// Hangs up once TLS is there.
    HangUp,
    /// Refuses the password, with this SQLSTATE and text.
    Refuse(&'static str, &'static str),
    /// Lets in; `current_user` is this, or the user that was named, and there is an instance of this id, if any.
    LetIn { user: Option<&'static str>, duckling: Option<&'static str> },
    /// Lets in as whoever was named, and hangs up after so many times `SELECT 1`.
    LetInFor(u32),
    /// Lets in whom the stand-in for the API, at this address, takes for a consumer that may come in.
    AsTheApi(String),
    /// Lets in, and hangs up at the first question.
    HangUpInside,
}

pub struct ScriptedPostgres {
    pub port: u16,
    passwords: Arc<Mutex<Vec<String>>>,
}

impl ScriptedPostgres {
    pub async fn start(signed: &Signed, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let passwords = Arc::new(Mutex::new(Vec::new()));
        let (tls, seen) = (acceptor(signed), Arc::clone(&passwords));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, script, seen) = (tls.clone(), script.clone(), Arc::clone(&seen));
                // Whoever hangs up ends only this.
                tokio::spawn(async move { drop(serve(stream, tls, script, &seen).await) });
            }
        });
        Self { port, passwords }
    }

    pub fn endpoint(&self, ca_cert: Option<std::path::PathBuf>) -> Endpoint {
        Endpoint { host: "127.0.0.1".to_owned(), port: self.port, ca_cert }
    }

    /// Every password that was sent here.
    pub fn passwords(&self) -> Vec<String> {
        self.passwords.lock().unwrap().clone()
    }
}

fn acceptor(signed: &Signed) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

async fn serve(mut stream: TcpStream, tls: TlsAcceptor, script: Script, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut question = [0; 8];
    stream.read_exact(&mut question).await?;
    if matches!(script, Script::NoTls) {
        stream.write_all(b"N").await?;
        // Whatever is sent in the clear all the same would be seen.
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await?;
        seen.lock().unwrap().push(rest);
        return Ok(());
    }
    stream.write_all(b"S").await?;
    let mut stream = tls.accept(stream).await?;
    let startup = body(&mut stream).await?;
    let words: Vec<_> = startup[4..].split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let named = words.chunks(2).find(|pair| pair[0] == "user").map(|pair| pair[1].to_string()).unwrap();
    match script {
        Script::Silence => return std::future::pending().await,
        Script::HangUp => return Ok(()),
        _ => {}
    }
    // A password in the clear, please.
    stream.write_all(&message(b'R', &3_i32.to_be_bytes())).await?;
    stream.read_u8().await?;
    let password = body(&mut stream).await?;
    let password = String::from_utf8_lossy(&password).trim_end_matches('\0').to_owned();
    seen.lock().unwrap().push(password.clone());
    let script = match script {
        Script::AsTheApi(api) => as_the_api(&api, password).await,
        script => script,
    };
    if let Script::Refuse(state, text) = script {
        stream.write_all(&error(state, text)).await?;
        return stream.shutdown().await;
    }
    stream.write_all(&message(b'R', &0_i32.to_be_bytes())).await?;
    stream.write_all(&ready()).await?;
    let mut asked = 0;
    while let Ok(kind) = stream.read_u8().await {
        let text = body(&mut stream).await?;
        asked += u32::from(text.starts_with(b"SELECT 1"));
        if kind != b'Q' || matches!(script, Script::HangUpInside) {
            return stream.shutdown().await;
        }
        let (user, duckling) = match &script {
            // Whoever holds a session open to see how long it lives is to see its end.
            Script::LetIn { user, duckling } if asked <= 8 => (*user, *duckling),
            Script::LetInFor(times) if asked <= *times => (None, Some("0f3a.rw")),
            _ => return stream.shutdown().await,
        };
        let about_user = text.windows(12).any(|part| part == b"current_user");
        let answer = if about_user { Some(user.unwrap_or(&named)) } else { duckling };
        match answer {
            Some(value) => stream.write_all(&row(value)).await?,
            None => stream.write_all(&error("42883", "Table Function with name __md_duckling_id does not exist")).await?,
        }
        stream.write_all(&ready()).await?;
    }
    Ok(())
}

async fn as_the_api(api: &str, password: String) -> Script {
    let asked = reqwest::Client::new().get(format!("{api}/_stand-in/validate")).bearer_auth(password).send().await;
    let answer = asked.unwrap();
    if answer.status() != 200 {
        return Script::Refuse("28P01", "Invalid MotherDuck token");
    }
    let consumer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let duckling = if consumer["token_type"] == "read_write" { "0f3a.rw" } else { "0f3a.rs.0" };
    Script::LetIn { user: None, duckling: Some(duckling) }
}

async fn body(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = stream.read_i32().await?;
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap() + 4;
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn error(state: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{state}\0M{text}\0\0").as_bytes())
}

/// One row of one column, and that it was all.
fn row(value: &str) -> Vec<u8> {
    let mut columns = 1_i16.to_be_bytes().to_vec();
    columns.extend(b"value\0");
    columns.extend([0; 6]); // no table
    columns.extend(25_i32.to_be_bytes()); // text
    columns.extend((-1_i16).to_be_bytes());
    columns.extend((-1_i32).to_be_bytes());
    columns.extend([0; 2]);
    let mut values = 1_i16.to_be_bytes().to_vec();
    values.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
    values.extend(value.as_bytes());
    [message(b'T', &columns), message(b'D', &values), message(b'C', b"SELECT 1\0")].concat()
}
