//! KEK files, and the files of their passphrases and keys.

use std::path::Path;

use encx_config::ConfigError;
use encx_local::{LocalKms, Protection};

use crate::{File, of_env};

fn write(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_passphrase_stands_in_a_file_that_only_its_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (keks, secret) = (folder.path().join("keks.encx"), folder.path().join("passphrase"));
    LocalKms::create(&keks, Protection::passphrase("correct horse"))
        .await
        .unwrap();
    let (url, file) = (format!("local:{}", keks.display()), secret.display().to_string());
    let variables = [
        ("ENCX_KMS", url.as_str()),
        ("ENCX_KEK_PASSPHRASE_FILE", file.as_str()),
    ];
    let open = async || {
        of_env(&variables)
            .unwrap()
            .kms()
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };

    write(&secret, "correct horse\n", 0o644);
    let refused = open().await.unwrap_err();
    assert!(
        refused.contains(&format!("{file} has mode 0644")) && refused.contains("chmod 600"),
        "{refused}"
    );
    write(&secret, "correct horse\n", 0o600);
    open().await.unwrap();
    write(&secret, "wrong horse\n", 0o600);
    let refused = open().await.unwrap_err();
    assert!(
        refused.contains("this passphrase does not open the KEK file") && !refused.contains("horse"),
        "{refused}"
    );
    write(&secret, "\n", 0o600);
    assert!(open().await.unwrap_err().contains("it is empty"));
    std::fs::remove_file(&secret).unwrap();
    assert!(open().await.unwrap_err().contains(&file));
}

#[tokio::test]
async fn each_kek_file_can_have_a_protection_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write(Path::new(&at("key")), &"ab".repeat(32), 0o400);
    let file = File::new(&format!(
        "[kms.default]\nurl = \"local:{}\"\nkey_file = \"{}\"\ncreate = true\n",
        at("keks.encx"),
        at("key")
    ));
    // The general setting applies to KMSs without their own.
    let settings = file
        .load_with(&[("ENCX_KEK_PASSPHRASE_FILE", "/nowhere")])
        .unwrap();
    let first = settings.kms().await.unwrap();
    let again = settings.kms().await.unwrap();
    let kek = |kms: &encx_config::OpenKms| kms.primary().unwrap().default_kek().cloned().unwrap();
    assert_eq!(kek(&first), kek(&again), "an existing file is not created again");
    assert!(
        settings
            .describe()
            .get("kms.default")
            .unwrap()
            .value
            .contains("create = true")
    );
}

#[tokio::test]
async fn a_kek_file_is_not_created_unless_asked_for_and_not_left_without_protection() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("local:{}", folder.path().join("keks.encx").display());
    let refused = of_env(&[("ENCX_KMS", &url)]).unwrap_err();
    assert!(matches!(refused, ConfigError::Insecure { .. }));
    assert!(
        refused.to_string().contains("ENCX_KEK_PASSPHRASE_FILE"),
        "{refused}"
    );
    let both = [
        ("ENCX_KMS", url.as_str()),
        ("ENCX_KEK_PASSPHRASE_FILE", "a"),
        ("ENCX_KEK_KEY_FILE", "b"),
    ];
    let refused = of_env(&both).unwrap_err().to_string();
    assert!(
        refused.contains("a passphrase file and a key file are set"),
        "{refused}"
    );
    let settings = of_env(&[("ENCX_KMS", &url), ("ENCX_ALLOW_INSECURE", "1")]).unwrap();
    let refused = settings.kms().await.unwrap_err().to_string();
    assert!(
        refused.contains("which `ENCX_KMS` names, cannot be used: there is no KEK file"),
        "{refused}"
    );
}
