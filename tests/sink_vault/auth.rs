//! Each way to log in, the least policy, and what becomes of our own token.

use super::*;
use base64_url::encode as base64;
use rcgen::{CertificateParams, KeyPair, SigningKey};

/// Base64 as in a JWT.
mod base64_url {
    pub fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            let digits = (0..=chunk.len()).map(|digit| ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63] as char);
            text.extend(digits);
        }
        text
    }
}

/// A JWT signed with Ed25519, whatever `algorithm` it claims, and the public key that proves it.
fn jwt(algorithm: &str, claims: &Value) -> (String, String) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let head = base64(json!({ "alg": algorithm, "typ": "JWT" }).to_string().as_bytes());
    let signed = format!("{head}.{}", base64(claims.to_string().as_bytes()));
    let signature = base64(&key.sign(signed.as_bytes()).unwrap());
    (format!("{signed}.{signature}"), key.public_key_pem())
}

/// The block of `docs/vault.md` that begins with this line.
fn documented(name: &str) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/vault.md")).unwrap();
    let (_, rest) = text.split_once(&format!("```hcl {name}\n")).unwrap_or_else(|| panic!("no block `{name}`"));
    rest.split_once("```").unwrap().0.to_owned()
}

async fn works(place: &Arc<dyn Place>) {
    for number in 0..2 {
        deliver(place, "etl", &Delivery::new("etl", number)).await;
        let reading = read(place, "etl").await;
        assert_eq!(reading.value.unwrap().expose(), Delivery::new("etl", number).value.expose());
    }
}

#[tokio::test]
async fn the_documented_policy_is_enough_and_each_capability_is_needed() {
    let bao = Bao::dev().await;
    let policy = documented("kv2");
    let whole = limited_store(&bao, &policy).await;
    let place: Arc<dyn Place> = whole.place(target("etl/motherduck", "token")).unwrap();
    let findings = place.check().await;
    assert!(findings.iter().all(|finding| matches!(finding, Finding::Fine(_))), "{findings:?}");
    works(&place).await;

    let without = [
        ("\"read\", \"update\"", "\"update\"", "`read` on `secret/data/etl/motherduck`"),
        ("\"read\", \"update\"", "\"read\"", "`update` on `secret/data/etl/motherduck`"),
        ("\"create\", \"read\", \"patch\"", "\"read\", \"patch\"", "`create` on `secret/metadata/etl/motherduck`"),
        ("\"create\", \"read\", \"patch\"", "\"create\", \"patch\"", "`read` on `secret/metadata/etl/motherduck`"),
        ("\"create\", \"read\", \"patch\"", "\"create\", \"read\"", "`update` on `secret/metadata/etl/motherduck`"),
    ];
    for (whole, part, lacking) in without {
        let less = policy.replace(whole, part);
        assert_ne!(less, policy, "the policy has {whole}");
        let store = limited_store(&bao, &less).await;
        let place: Arc<dyn Place> = store.place(target("etl/motherduck", "token")).unwrap();
        let failed = first_failure(&bao, &place).await;
        assert_eq!(failed.reason, Reason::Forbidden, "{failed}");
        assert!(failed.detail.contains(&format!("the token lacks {lacking}")), "{failed}");
        let findings = place.check().await;
        assert!(
            findings.iter().any(|finding| matches!(finding, Finding::Wrong(failed) if failed.reason == Reason::Forbidden)),
            "{lacking}: {findings:?}"
        );
    }
}

/// What goes wrong with a delivery to a secret that does not exist, and then with one to a secret that does.
async fn first_failure(bao: &Bao, place: &Arc<dyn Place>) -> rotad::rotation::Failed {
    bao.call("DELETE", "secret/metadata/etl/motherduck", None).await;
    for number in 0..2 {
        let version = match place.read(&question("etl")).await {
            Ok(reading) => reading.version,
            Err(failed) => return failed,
        };
        match place.write(&version, &Delivery::new("etl", number).payload()).await {
            WriteOutcome::Written => {}
            WriteOutcome::Refused(failed) => return failed,
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing is lacking");
}

#[tokio::test]
async fn the_documented_policy_for_version_1_is_enough() {
    let bao = Bao::dev().await;
    bao.ok("DELETE", "sys/mounts/secret", Value::Null).await;
    bao.ok("POST", "sys/mounts/secret", json!({ "type": "kv", "options": { "version": "1" } })).await;
    let auth = limited_token(&bao, &documented("kv1")).await;
    let store = Store::open(Config { kv_version: KvVersion::V1, ..config(&bao, auth) }).await.unwrap();
    let place: Arc<dyn Place> = store.place(target("etl/motherduck", "token")).unwrap();
    let findings = place.check().await;
    assert!(findings.iter().all(|finding| matches!(finding, Finding::Fine(_))), "{findings:?}");
    works(&place).await;
}

#[tokio::test]
async fn a_token_without_the_default_policy_needs_what_is_documented() {
    let bao = Bao::dev().await;
    put_policy(&bao, "own", &format!("{}\n{}", documented("kv2"), documented("own-token"))).await;
    let made = bao.ok("POST", "auth/token/create", json!({ "policies": ["own"], "no_default_policy": true, "ttl": "1h" })).await;
    let source = secret_file(&bao, "own-token", made["auth"]["client_token"].as_str().unwrap());
    let store = Store::open(config(&bao, Auth::Token(source))).await.unwrap();
    let place: Arc<dyn Place> = store.place(target("etl/motherduck", "token")).unwrap();
    assert!(place.check().await.iter().all(|finding| matches!(finding, Finding::Fine(_))));
    works(&place).await;
}

#[tokio::test]
async fn a_changed_token_is_read_from_its_file_again() {
    let bao = Bao::dev().await;
    let auth = limited_token(&bao, &documented("kv2")).await;
    let Auth::Token(SecretSource::File(path)) = &auth else { unreachable!() };
    let first = std::fs::read_to_string(path).unwrap();
    let store = Store::open(config(&bao, auth.clone())).await.unwrap();
    let place: Arc<dyn Place> = store.place(target("etl/motherduck", "token")).unwrap();
    works(&place).await;
    bao.ok("POST", "auth/token/revoke", json!({ "token": first.trim() })).await;
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Unauthorized, "{failed}");
    assert!(failed.detail.contains("expired or was revoked") && failed.detail.contains(&*path.to_string_lossy()), "{failed}");

    limited_token(&bao, &documented("kv2")).await; // writes another token to the same file
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await; // a failed login answers for a second
    works(&place).await;
}

#[tokio::test]
async fn our_token_is_renewed_while_it_can_be_and_then_replaced() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let role = json!({ "token_policies": ["all"], "token_ttl": "3s", "token_max_ttl": "9s" });
    let store = store_at(&bao, &gate.address, approle(&bao, role).await.0).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let reading = async {
        while gate.count("auth/token/renew-self") < 2 || gate.count("auth/approle/login") < 2 {
            read(&place, "etl").await; // never fails, whenever it comes
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), reading).await.expect("renewals and a second login");
}

#[tokio::test]
async fn a_revoked_token_is_replaced_at_once_by_one_login() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store =
        store_at(&bao, &gate.address, approle(&bao, json!({ "token_policies": ["all"], "token_ttl": "1h" })).await.0).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    works(&place).await;
    bao.ok("PUT", "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    works(&place).await;
    assert_eq!(gate.count("auth/approle/login"), 2);
}

#[tokio::test]
async fn many_at_once_share_one_login() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store =
        store_at(&bao, &gate.address, approle(&bao, json!({ "token_policies": ["all"], "token_ttl": "1h" })).await.0).await;
    let places: Vec<Arc<dyn Place>> =
        (0..32).map(|number| -> Arc<dyn Place> { store.place(target(&format!("app{number}"), "token")).unwrap() }).collect();
    for logins in [1, 2] {
        futures_util::future::join_all(places.iter().map(|place| read(place, "etl"))).await;
        assert_eq!(gate.count("auth/approle/login"), logins);
        bao.ok("PUT", "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    }
}

#[tokio::test]
async fn a_missing_permission_is_no_reason_to_log_in_again() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    // The second may not even look itself up, so that one more login is needed to see that.
    for (role, logins) in [
        (json!({ "token_policies": ["none"], "token_ttl": "1h" }), 1),
        (json!({ "token_policies": ["none"], "token_ttl": "1h", "token_no_default_policy": true }), 3),
    ] {
        let store = store_at(&bao, &gate.address, approle(&bao, role).await.0).await;
        let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
        for _ in 0..5 {
            let failed = place.read(&question("etl")).await.unwrap_err();
            assert_eq!(failed.reason, Reason::Forbidden, "{failed}");
            assert!(failed.detail.contains("lacks `read` on `secret/data/app`"), "{failed}");
        }
        assert_eq!(gate.count("auth/approle/login"), logins);
    }
}

#[tokio::test]
async fn a_refused_login_is_told_without_the_secret() {
    let bao = Bao::dev().await;
    let (auth, _) = approle(&bao, json!({ "token_policies": ["all"] })).await;
    let Auth::AppRole { secret_id: SecretSource::File(path), .. } = &auth else { unreachable!() };
    std::fs::write(path, "not-the-secret-id").unwrap();
    let store = Store::open(config(&bao, auth.clone())).await.unwrap();
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Unauthorized, "{failed}");
    assert!(failed.detail.contains("auth/approle") && !failed.detail.contains("not-the-secret-id"), "{failed}");

    std::fs::remove_file(path).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await; // a failed login answers for a second
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Missing, "{failed}");
    assert!(failed.detail.contains(&*path.to_string_lossy()), "{failed}");
}

#[tokio::test]
async fn a_wrapped_secret_id_is_unwrapped_once_and_kept() {
    let bao = Bao::dev().await;
    let (auth, _) = approle(&bao, json!({ "token_policies": ["all"], "token_ttl": "1h" })).await;
    let Auth::AppRole { secret_id: SecretSource::File(path), .. } = &auth else { unreachable!() };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let wrapped = http
        .post(format!("{}/v1/auth/approle/role/rotad/secret-id", bao.address))
        .header("X-Vault-Token", "root")
        .header("X-Vault-Wrap-TTL", "10m");
    let wrapped: Value = serde_json::from_str(&wrapped.send().await.unwrap().text().await.unwrap()).unwrap();
    std::fs::write(path, wrapped["wrap_info"]["token"].as_str().unwrap()).unwrap();

    let store = Store::open(config(&bao, auth.clone())).await.unwrap();
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    works(&place).await;
    bao.ok("PUT", "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    works(&place).await;

    let store = Store::open(config(&bao, auth.clone())).await.unwrap();
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Unauthorized);
    assert!(failed.detail.contains("unwrapped before"), "{failed}");
}

#[tokio::test]
async fn a_jwt_logs_in() {
    let bao = Bao::dev().await;
    put_policy(&bao, "all", ALL).await;
    let far = 4_000_000_000_u64;
    let (token, key) = jwt("EdDSA", &json!({ "iss": "test", "sub": "rotad", "aud": "vault", "exp": far, "iat": 1_700_000_000 }));
    bao.ok("POST", "sys/auth/jwt", json!({ "type": "jwt" })).await;
    bao.ok("POST", "auth/jwt/config", json!({ "jwt_validation_pubkeys": [key], "jwt_supported_algs": ["EdDSA"] })).await;
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": ["all"], "token_ttl": "1h" });
    bao.ok("POST", "auth/jwt/role/rotad", role).await;
    let token = secret_file(&bao, "jwt", &token);
    let auth = Auth::Jwt { mount: "jwt".to_owned(), role: Some("rotad".to_owned()), token };
    works(&(Store::open(config(&bao, auth)).await.unwrap().place(target("app", "token")).unwrap() as Arc<dyn Place>)).await;
}

#[tokio::test]
async fn a_kubernetes_service_account_logs_in() {
    let bao = Bao::dev().await;
    put_policy(&bao, "all", ALL).await;
    // What Kubernetes would say of the token: its TokenReview.
    let review = axum::Router::new().fallback(|| async {
        let status = json!({ "authenticated": true, "user": { "username": "system:serviceaccount:prod:rotad", "uid": "uid-1" } });
        axum::Json(json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status }))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, review).await.unwrap() });

    let account = json!({ "namespace": "prod", "serviceaccount": { "name": "rotad", "uid": "uid-1" } });
    let claims = json!({ "iss": "kubernetes", "exp": 4_000_000_000_u64, "iat": 1_700_000_000, "nbf": 1_700_000_000,
        "sub": "system:serviceaccount:prod:rotad", "kubernetes.io": account });
    // Its form is checked by the server, its signature by Kubernetes alone.
    let (token, _) = jwt("ES256", &claims);
    bao.ok("POST", "sys/auth/kubernetes", json!({ "type": "kubernetes" })).await;
    let authority = CertificateParams::new([]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let reviewer = json!({ "kubernetes_host": host, "token_reviewer_jwt": token, "kubernetes_ca_cert": authority });
    bao.ok("POST", "auth/kubernetes/config", reviewer).await;
    let role = json!({ "bound_service_account_names": ["rotad"], "bound_service_account_namespaces": ["prod"],
        "token_policies": ["all"], "token_ttl": "1h" });
    bao.ok("POST", "auth/kubernetes/role/rotad", role).await;

    let SecretSource::File(jwt) = secret_file(&bao, "jwt", &token) else { unreachable!() };
    let auth = Auth::Kubernetes { mount: "kubernetes".to_owned(), role: "rotad".to_owned(), jwt };
    works(&(Store::open(config(&bao, auth)).await.unwrap().place(target("app", "token")).unwrap() as Arc<dyn Place>)).await;
    server.abort();
}

#[tokio::test]
async fn a_certificate_logs_in_over_tls_with_an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&server_key).unwrap();
    let client_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["rotad".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let client = params.self_signed(&client_key).unwrap();
    let tls = Tls {
        cert: file("server.pem", server.pem()),
        key: file("server.key", server_key.serialize_pem()),
        ca: file("ca.pem", server.pem()),
    };
    let bao = Bao::full(Some(&tls)).await;
    put_policy(&bao, "all", ALL).await;
    bao.ok("POST", "sys/auth/cert", json!({ "type": "cert" })).await;
    let role = json!({ "certificate": client.pem(), "token_policies": ["all"], "token_ttl": "1h" });
    bao.ok("POST", "auth/cert/certs/rotad", role).await;

    let auth = Auth::Cert {
        mount: "cert".to_owned(),
        role: Some("rotad".to_owned()),
        cert_file: file("client.pem", client.pem()),
        key_file: file("client.key", client_key.serialize_pem()),
    };
    let trusting = Config { ca_cert: Some(tls.ca.clone()), ..config(&bao, auth) };
    works(&(Store::open(trusting.clone()).await.unwrap().place(target("app", "token")).unwrap() as Arc<dyn Place>)).await;

    let distrusting = Config { ca_cert: Some(file("other.pem", client.pem())), ..trusting };
    let place: Arc<dyn Place> = Store::open(distrusting).await.unwrap().place(target("app", "token")).unwrap();
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Unreachable, "{failed}");
    assert!(failed.detail.contains("certificate") && failed.detail.contains("ca_cert"), "{failed}");
}

#[tokio::test]
async fn certificate_files_that_are_none_are_refused_by_name() {
    let bao = Bao::dev().await;
    let SecretSource::File(path) = secret_file(&bao, "ca.pem", "no certificate") else { unreachable!() };
    let wrong =
        Config { address: "https://127.0.0.1:1".to_owned(), ca_cert: Some(path.clone()), ..config(&bao, root_auth(&bao)) };
    let failed = Store::open(wrong).await.err().unwrap();
    assert_eq!(failed.reason, Reason::Unsuitable);
    assert!(failed.detail.contains(&*path.to_string_lossy()), "{failed}");
}

#[tokio::test]
async fn a_namespace_is_a_store_of_its_own() {
    let bao = Bao::dev().await;
    bao.ok("POST", "sys/namespaces/team", json!({})).await;
    let mount = json!({ "type": "kv", "options": { "version": "2" } });
    bao.call_as("root", Some("team"), "POST", "sys/mounts/secret", Some(mount)).await;
    let inside = Config { namespace: Some("team".to_owned()), ..config(&bao, root_auth(&bao)) };
    let place: Arc<dyn Place> = Store::open(inside).await.unwrap().place(target("app", "token")).unwrap();
    let ready = async {
        while place.read(&question("etl")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ready).await.expect("the new engine gets ready");
    works(&place).await;
    assert_eq!(place.id().as_str(), format!("vault:{}/ns/team/secret/app#token", bao.address));
    assert_eq!(bao.call_as("root", Some("team"), "GET", "secret/data/app", None).await.0, 200);
    assert_eq!(bao.call("GET", "secret/data/app", None).await.0, 404, "nothing outside of the namespace");
}
