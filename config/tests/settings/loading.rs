//! Two sources: the environment wins, and errors name what is wrong.

use encx_config::{ConfigError, Loader, Origin};

use crate::{File, of_env};

fn value(settings: &encx_config::Settings, key: &str) -> (String, String) {
    let description = settings.describe();
    let setting = description.get(key).unwrap();
    (setting.value.clone(), setting.origin.clone())
}

#[test]
fn the_environment_wins_over_the_file_and_both_over_the_default() {
    let file = File::new("key_store = \"sqlite:file.db\"\n\n[cache]\nttl = \"30min\"\nmax_keyrings = 500\n");
    let settings = file
        .load_with(&[("ENCX_CACHE_TTL", "90s"), ("DATABASE_URL", "postgres://db/app")])
        .unwrap();
    assert_eq!(
        value(&settings, "cache.ttl"),
        ("1m 30s".to_owned(), "`ENCX_CACHE_TTL`".to_owned())
    );
    let (keyrings, origin) = value(&settings, "cache.max_keyrings");
    assert_eq!(keyrings, "500");
    assert_eq!(file.shorten(&origin), "`cache.max_keyrings` in encx.toml, line 5");
    assert_eq!(
        value(&settings, "cache.state_ttl"),
        ("1m".to_owned(), "default".to_owned())
    );
    // DATABASE_URL is used if neither the variable nor the file names a key store.
    assert_eq!(value(&settings, "key_store.url").0, "sqlite:file.db");
    let settings = of_env(&[("DATABASE_URL", "postgres://db/app")]).unwrap();
    assert_eq!(value(&settings, "key_store.url").1, "`DATABASE_URL`");
    let settings = of_env(&[
        ("DATABASE_URL", "postgres://db/app"),
        ("ENCX_KEY_STORE", "sqlite:keys.db"),
    ])
    .unwrap();
    assert_eq!(value(&settings, "key_store.url").1, "`ENCX_KEY_STORE`");
}

#[test]
fn every_wrong_value_names_its_setting_and_says_what_to_write() {
    for (variable, wrong, says) in [
        (
            "ENCX_CACHE_TTL",
            "60",
            "`ENCX_CACHE_TTL` is refused: `60` has no unit; write `60s`, `60min` or `60h`",
        ),
        (
            "ENCX_CACHE_STATE_TTL",
            "0s",
            "`ENCX_CACHE_STATE_TTL` is refused: it must be longer than zero",
        ),
        (
            "ENCX_CACHE_REFRESH_AHEAD",
            "1.5",
            "`ENCX_CACHE_REFRESH_AHEAD` is refused: 1.5 is out of range; write a fraction",
        ),
        (
            "ENCX_CACHE_MAX_KEYRINGS",
            "0",
            "0 is out of range; write a whole number from 1 to",
        ),
        (
            "ENCX_CACHE_CREATE_ON_FIRST_USE",
            "maybe",
            "`maybe` is neither yes nor no; write `true` or `false`",
        ),
        (
            "ENCX_CIPHER_SUITE",
            "aes",
            "`ENCX_CIPHER_SUITE` is refused: `aes` is not a suite; write `kc-xaes-256-gcm`",
        ),
        (
            "ENCX_ROTATION_USAGES",
            "data,peper",
            "`peper` is not a key usage; write one of `data`",
        ),
        (
            "ENCX_KEY_STORE",
            "mysql://db/app",
            "no key store has URLs with `mysql:`; allowed: `postgres:`",
        ),
        ("ENCX_KEY_STORE", "app.db", "it is not a database URL"),
    ] {
        let refused = of_env(&[(variable, wrong)]).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        assert!(
            refused.starts_with(&format!("`{variable}` is refused: ")),
            "{refused}"
        );
    }
}

#[test]
fn wrong_values_in_a_file_have_their_line() {
    for (text, says) in [
        (
            "[cache]\n\nttl = 3600\n",
            "`cache.ttl` in encx.toml, line 3 is refused: `3600` has no unit; write `3600s`",
        ),
        (
            "[cache]\nttl = [\"1h\"]\n",
            "`cache.ttl` in encx.toml, line 2 is refused: it is a list; write text in quotes",
        ),
        (
            "cache = 1\n",
            "`cache` in encx.toml, line 1 is refused: it is a number; write a table",
        ),
        (
            "[cache]\ntll = \"1h\"\n",
            "`cache.tll` in encx.toml, line 2 is not a setting; did you mean `ttl`?; allowed here: `create_on_first_use`",
        ),
        (
            "[cach]\nttl = \"1h\"\n",
            "`cach` in encx.toml, line 1 is not a setting; did you mean `cache`?; allowed here: `allow",
        ),
        (
            "[kek]\nfor = 3\n",
            "`kek.for` in encx.toml, line 2 is refused: it is a number; write `[[kek.for]]`",
        ),
        ("ttl = \n", "encx.toml, line 1: "),
        (
            "[[rotation.for]]\npair = \"purpose\"\nvalue = \"pii\"\nevery = 30\n",
            "`rotation.for[1].every` in encx.toml, line 4 is refused: it is a number; write text in quotes",
        ),
        (
            "[[rotation.for]]\npair = \"purpose\"\nvalue = \"pii\"\n",
            "`rotation.for[1]` in encx.toml, line 1 is refused: it has no `every`; write `every = \"30days\"`",
        ),
    ] {
        let refused = File::new(text).refusal();
        assert!(refused.starts_with(says), "{refused}\n{says}");
    }
}

#[test]
fn mistyped_variables_are_refused_and_those_of_others_are_not() {
    let refused = of_env(&[("ENCX_CACHE_TLL", "1h")]).unwrap_err();
    assert!(
        matches!(&refused, ConfigError::UnknownVariable { variable, .. } if variable == "ENCX_CACHE_TLL")
    );
    assert!(
        refused.to_string().contains("did you mean `ENCX_CACHE_TTL`?"),
        "{refused}"
    );
    // A passphrase must be in a file.
    let refused = of_env(&[("ENCX_KEK_PASSPHRASE", "hunter2")])
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("did you mean `ENCX_KEK_PASSPHRASE_FILE`?") && !refused.contains("hunter2"),
        "{refused}"
    );
    of_env(&[
        ("ENCX_TEST_POSTGRES_URL", "x"),
        ("ENCX_SERVICE_HOST", "10.0.0.1"),
        ("ENCX_API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("ENCX_PORT", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
        ("ENCX_CACHE_TTL", ""),
    ])
    .unwrap();
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let refused = of_env(&[("ENCX_CONFIG", "/nowhere/encx.toml")]).unwrap_err();
    assert!(matches!(refused, ConfigError::File { .. }));
    let refused = refused.to_string();
    assert!(
        refused.contains("/nowhere/encx.toml cannot be read") && refused.contains("ENCX_CONFIG names"),
        "{refused}"
    );
    let file = File::new("[cache]\nttl = \"2h\"\n");
    let settings = of_env(&[("ENCX_CONFIG", file.path.to_str().unwrap())]).unwrap();
    assert_eq!(settings.file(), Some(file.path.as_path()));
    assert_eq!(value(&settings, "cache.ttl").0, "2h");
}

#[test]
fn no_secret_is_shown() {
    let url = "postgres://app:hunter2@db.internal/app?password=hunter3";
    let settings = of_env(&[
        ("ENCX_KEY_STORE", url),
        ("ENCX_LISTEN_URL", "postgres://app:hunter4@db/app"),
    ])
    .unwrap();
    let shown = format!(
        "{settings:?} {} {} {:?} {:?}",
        settings.describe(),
        serde_json::to_string(&settings.describe()).unwrap(),
        settings.key_store_url().as_ref(),
        Loader::new().env([("ENCX_KEY_STORE", url)]),
    );
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(
        shown.contains("postgres://app:[REDACTED]@db.internal/app"),
        "{shown}"
    );
    assert!(settings.key_store_url().unwrap().expose().contains("hunter2"));
    // The error must not show what may be a password in the wrong variable.
    let refused = of_env(&[("ENCX_KEY_STORE", "hunter5")]).unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("hunter5"));
    let refused = of_env(&[("ENCX_KMS", "hunter6")]).unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("hunter6"));
}

#[cfg(unix)]
#[test]
fn a_password_in_a_file_that_all_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = File::new("key_store = \"postgres://app:hunter2@db/app\"\n");
    let mode = |mode| std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let refused = file.load().unwrap_err();
    assert!(matches!(refused, ConfigError::Permissions { mode: 0o644, .. }));
    let refused = file.shorten(&refused.to_string());
    assert!(
        refused.starts_with("encx.toml has mode 0644, so that every user of this machine can read the password of `key_store` in line 1; run `chmod 600"),
        "{refused}"
    );
    mode(0o640);
    file.load().unwrap();
    // The variable wins, but every user can still read the password in the file.
    mode(0o644);
    file.load_with(&[("ENCX_KEY_STORE", "sqlite:keys.db")])
        .unwrap_err();
    File::new("key_store = \"postgres://app@db/app\"\n")
        .load()
        .unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = File::new("key_store = \"sqlite:keys.db\"\n");
    let mode = |mode| std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(mode)).unwrap();
    for writable in [0o660, 0o602, 0o664] {
        mode(writable);
        let refused = file.load().unwrap_err();
        assert!(
            matches!(refused, ConfigError::Writable { mode, .. } if mode == writable),
            "{refused}"
        );
        let refused = file.shorten(&refused.to_string());
        assert!(
            refused.contains(&format!("encx.toml has mode {writable:04o}"))
                && refused.contains("`chmod go-w "),
            "{refused}"
        );
    }
    mode(0o644);
    file.load().unwrap();
}

#[test]
fn what_is_described_says_where_it_comes_from() {
    let file = File::new("[kms]\neu = \"aws-kms:alias/eu\"\n");
    let settings = file.load_with(&[("ENCX_KMS", "aws-kms:alias/shop")]).unwrap();
    let description = settings.describe();
    let eu = description.get("kms.eu").unwrap();
    assert_eq!((eu.value.as_str(), eu.is_default), ("aws-kms:alias/eu", false));
    assert_eq!(description.get("kms.default").unwrap().origin, "`ENCX_KMS`");
    let ttl = description.get("cache.ttl").unwrap();
    assert_eq!(
        (ttl.variable.as_deref(), ttl.is_default),
        (Some("ENCX_CACHE_TTL"), true)
    );
    let lines = description.to_string();
    let line = lines.lines().find(|line| line.starts_with("kms.eu")).unwrap();
    assert!(
        line.contains("aws-kms:alias/eu") && line.ends_with("line 2"),
        "{lines}"
    );
    let json = serde_json::to_value(&description).unwrap();
    assert_eq!(json[0]["key"], "allow_insecure");
    assert_eq!(Origin::Default.to_string(), "default");
}

/// The README lists every setting, with its variable.
#[test]
fn the_readme_lists_every_setting() {
    let readme = include_str!("../../README.md");
    for setting in Loader::new().load().unwrap().describe().settings() {
        let variable = setting.variable.as_deref().unwrap();
        assert!(
            readme.contains(&format!("`{variable}`")),
            "{variable} is not in README.md"
        );
        let (section, key) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        assert!(
            readme.contains(&format!("`{}`", setting.key)),
            "{section} {key} is not in README.md"
        );
    }
}

/// The described defaults are those of the builder.
#[tokio::test]
async fn the_defaults_that_are_described_are_those_of_the_builder() {
    let defaults = Loader::new().load().unwrap().describe();
    let variables: Vec<_> = defaults
        .settings()
        .iter()
        .filter(|setting| setting.key.starts_with("cache."))
        .map(|setting| (setting.variable.clone().unwrap(), setting.value.clone()))
        .collect();
    assert!(variables.len() > 5);
    let basics = [
        ("ENCX_KMS", "memory:"),
        ("ENCX_ALLOW_INSECURE", "1"),
        ("ENCX_KEY_STORE", "sqlite::memory:"),
    ];
    let basics = basics.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let plain = Loader::new()
        .env(basics.clone())
        .load()
        .unwrap()
        .builder()
        .await
        .unwrap();
    let described = Loader::new()
        .env(basics.into_iter().chain(variables))
        .load()
        .unwrap()
        .builder()
        .await
        .unwrap();
    let limits = |builder: &encx::CryptoBuilder| {
        let shown = format!("{builder:?}");
        shown[shown.find("limits").unwrap()..].to_owned()
    };
    assert_eq!(limits(&described), limits(&plain));
}
