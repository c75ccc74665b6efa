//! Everything that the daemon speaks to, with a gate before each that can repeat what it was sent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::aws_proxy::Proxy;
use crate::moto::Moto;
use crate::openbao::Bao;
use crate::plain::Plain;
use crate::process::Process;
use crate::search::Search;
use crate::vault_gate::Gate;

const AWS_SECRET_KEY: &str = "PlantedAwsSecretKey/0123456789+abcdefABCDEF";
const AWS_SESSION_TOKEN: &str = "PlantedAwsSessionToken/9876543210+fedcbaFEDCBA/zyxwvutsrqponm==";
const AUTH: &str = "auth/approle/role/rotad";

pub struct Surroundings {
    pub plain: Plain,
    pub api: Gate,
    pub vault: Gate,
    pub aws: Proxy,
    _bao: Bao,
    _moto: Arc<Moto>,
    vault_token: String,
    secret_id: String,
}

impl Surroundings {
    pub async fn start() -> Self {
        let plain = Plain::start();
        let (bao, moto) = (Bao::dev().await, Moto::shared());
        let (api, vault, aws) =
            (Gate::before(plain.api()).await, Gate::before(&bao.address).await, Proxy::before(&moto.url).await);
        let rules = "path \"secret/*\" { capabilities = [\"create\", \"read\", \"update\", \"patch\"] }\n\
                     path \"sys/capabilities-self\" { capabilities = [\"update\"] }\n\
                     path \"auth/token/*\" { capabilities = [\"read\", \"update\"] }";
        bao.ok("PUT", "sys/policies/acl/rotad", json!({ "policy": rules })).await;
        let token = bao.ok("POST", "auth/token/create", json!({ "policies": ["rotad"], "ttl": "1h" })).await;
        bao.ok("POST", "sys/auth/approle", json!({ "type": "approle" })).await;
        bao.ok("POST", AUTH, json!({ "token_policies": "rotad", "token_ttl": "1h" })).await;
        let role_id = bao.call("GET", &format!("{AUTH}/role-id"), None).await.1;
        let secret_id = bao.ok("POST", &format!("{AUTH}/secret-id"), json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (vault_token, secret_id) = (text(&token["auth"]["client_token"]), text(&secret_id["data"]["secret_id"]));
        let surroundings = Self { plain, api, vault, aws, _bao: bao, _moto: moto, vault_token, secret_id };
        for (name, secret) in [("vault-token", &surroundings.vault_token), ("secret-id", &surroundings.secret_id)] {
            surroundings.keep(name, secret);
        }
        for name in ["tmp", "cwd"] {
            std::fs::create_dir(surroundings.plain.path(name)).unwrap();
        }
        surroundings.plain.configure(&surroundings.configuration(&text(&role_id["data"]["role_id"])));
        surroundings
    }

    fn keep(&self, name: &str, secret: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.plain.path(name), secret).unwrap();
        std::fs::set_permissions(self.plain.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Two credentials to four kinds of places, with either way to verify and to log in.
    fn configuration(&self, role_id: &str) -> String {
        let directory = self.plain.path("").display().to_string();
        let directory = directory.trim_end_matches('/');
        let head = self.plain.head().replace(self.plain.api(), &self.api.address);
        let secret = directory.trim_matches('/').replace(['/', '.'], "-");
        format!(
            r#"{head}every = "3s"
grace = "1s"

[sink.cloud.aws]
region = "eu-central-1"
endpoint_url = "{aws}"

[sink.main.vault]
address = "{vault}"
auth = {{ token = {{ file = "{directory}/vault-token" }} }}

[sink.role.vault]
address = "{vault}"
auth = {{ approle = {{ role_id = "{role_id}", secret_id = {{ file = "{directory}/secret-id" }} }} }}

[credential.one]
account = "etl_test"
verify = "self"
deliver = [
  {{ sink = "cloud", secret = "{secret}", format = "json" }},
  {{ sink = "disk", path = "{directory}/sinks/one", format = "json" }},
]

[credential.two]
account = "etl_test"
deliver = [
  {{ sink = "main", path = "two", key = "token" }},
  {{ sink = "role", path = "again/two", key = "token" }},
  {{ sink = "disk", path = "{directory}/sinks/two", format = "env" }},
]
"#,
            aws = self.aws.url,
            vault = self.vault.address,
        )
    }

    /// A command as the daemon's environment has it: AWS's secrets in it, a working directory and a place for
    /// temporary files of its own, and every level of the log.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.plain.path("cwd"))
            .env("ROTAD_CONFIG", self.plain.path("rotad.toml"))
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full")
            .env("HOME", self.plain.path("cwd"))
            .env("TMPDIR", self.plain.path("tmp"))
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", AWS_SECRET_KEY)
            .env("AWS_SESSION_TOKEN", AWS_SESSION_TOKEN)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    }

    pub fn rotad(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_BIN_EXE_rotad"))
    }

    /// The daemon, with as large a core allowed as there may be, its log in the file of this name.
    pub fn daemon(&self, log: &str, format: &str) -> Process {
        let log = std::fs::File::create(self.plain.path(log)).unwrap();
        let script = "ulimit -c \"$(ulimit -H -c)\"; exec \"$0\" run --log-format \"$1\"";
        let mut command = self.command(Path::new("sh"), &["-c", script]);
        command.arg(self.rotad()).arg(format);
        Process(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    /// Everything that must be found nowhere: ours, and what the servers gave out meanwhile.
    pub fn secrets(&self) -> Search {
        let mut search = Search::default();
        search.add("admin token", &std::fs::read_to_string(self.plain.path("admin-token")).unwrap());
        search.add("Vault token", &self.vault_token);
        search.add("secret id", &self.secret_id);
        search.add("AWS secret key", AWS_SECRET_KEY);
        search.add("AWS session token", AWS_SESSION_TOKEN);
        let mut values = 0;
        for answer in self.api.answered("users") {
            let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
            if let Some(value) = answer["token"].as_str() {
                search.add("value of a token", value);
                values += 1;
            }
        }
        let logins = self.vault.answered("auth/approle/login");
        let granted = logins.iter().filter_map(|answer| {
            let answer: Value = serde_json::from_str(answer).unwrap_or(Value::Null);
            answer["auth"]["client_token"].as_str().map(|token| search.add("Vault token of a login", token))
        });
        assert!(granted.count() >= 1, "no login was seen");
        assert!(values >= 4, "{values} tokens were seen");
        search
    }
}
