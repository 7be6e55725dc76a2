//! KMSs by name and URL.

use std::sync::atomic::{AtomicUsize, Ordering};

use encx::kms::{KmsErrorKind, KmsName};
use encx_config::{ConfigError, Loader};
use encx_testkit::MemoryKms;

use crate::{File, of_env};

const INSECURE: (&str, &str) = ("ENCX_ALLOW_INSECURE", "1");

#[test]
fn keks_in_memory_must_be_asked_for() {
    let refused = of_env(&[("ENCX_KMS", "memory:")]).unwrap_err();
    assert!(matches!(refused, ConfigError::Insecure { .. }));
    assert_eq!(
        refused.to_string(),
        "`ENCX_KMS` is refused: KEKs in memory are lost when the process ends, and all data with them; for development and tests set \
         ENCX_ALLOW_INSECURE=1"
    );
    of_env(&[("ENCX_KMS", "memory:"), INSECURE]).unwrap();
    of_env(&[("ENCX_KMS", "memory:"), ("ENCX_ALLOW_INSECURE", "0")]).unwrap_err();
}

#[tokio::test]
async fn several_kmss_have_names() {
    let settings = of_env(&[("ENCX_KMS", "memory:"), ("ENCX_KMS_EU", "memory:"), INSECURE]).unwrap();
    let kms = settings.kms().await.unwrap();
    let names: Vec<_> = kms.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "eu"]);
    assert_eq!(kms.primary_name().as_str(), "default");

    // A name before the URL, so that another KMS can keep the name `default`.
    let settings = of_env(&[
        ("ENCX_KMS", "aws=memory:"),
        ("ENCX_KMS_DEFAULT", "memory:"),
        INSECURE,
    ])
    .unwrap();
    let kms = settings.kms().await.unwrap();
    assert_eq!(kms.primary_name().as_str(), "aws");
    assert!(kms.get(&KmsName::default()).is_some());

    let twice = of_env(&[("ENCX_KMS", "eu=memory:"), ("ENCX_KMS_EU", "memory:"), INSECURE]).unwrap_err();
    assert!(
        twice.to_string().contains("`ENCX_KMS` names a KMS `eu` too"),
        "{twice}"
    );

    // The variable replaces the file's entry of the same name.
    let file = File::new(
        "[kms]\nus = \"memory:\"\n[kms.default]\nurl = \"aws-kms:alias/shop\"\nregions = [\"eu-west-1\"]\n",
    );
    let settings = file.load_with(&[("ENCX_KMS", "memory:"), INSECURE]).unwrap();
    assert_eq!(settings.describe().get("kms.default").unwrap().value, "memory:");
    assert_eq!(settings.kms().await.unwrap().iter().count(), 2);
}

#[tokio::test]
async fn which_of_several_wraps_is_asked_for() {
    let two = "allow_insecure = true\n[kms]\neu = \"memory:\"\nus = \"memory:\"\n";
    let settings = File::new(two).load().unwrap();
    let refused = settings.kms().await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "which of several KMSs wraps new keys is not set: set ENCX_KEK to its KEK, such as `eu:`, or call one of them \
         `default`"
    );
    let settings = File::new(two).load_with(&[("ENCX_KEK", "us:")]).unwrap();
    assert_eq!(settings.kms().await.unwrap().primary_name().as_str(), "us");
    let none = of_env(&[]).unwrap().kms().await.unwrap_err();
    assert!(
        none.to_string().starts_with("the KMS is not set: set ENCX_KMS,"),
        "{none}"
    );
}

#[test]
fn urls_that_no_kms_has_are_refused() {
    for (url, says) in [
        (
            "aws:alias/shop",
            "no KMS has URLs with `aws:`; allowed: `aws-kms:`, `local:`, `memory:`",
        ),
        (
            "aws-kmss:alias/shop",
            "no KMS has URLs with `aws-kmss:`; did you mean `aws-kms:`?; allowed",
        ),
        ("alias/shop", "it is not a KMS URL"),
        ("local:", "it names no file; write `local:` and a path"),
        ("EU=aws-kms:alias/shop", "`EU` cannot be the name of a KMS; write"),
        (
            "arn=aws-kms:alias/shop",
            "`arn` cannot be the name of a KMS; write",
        ),
    ] {
        let refused = of_env(&[("ENCX_KMS", url)]).unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("`ENCX_KMS` is refused: {says}")),
            "{refused}"
        );
    }
    for (text, says) in [
        (
            "[kms.default]\nurl = \"aws-kms:alias/shop\"\nregoins = [\"eu-west-1\"]\n",
            "`kms.default.regoins` in encx.toml, line 2 is not a setting; did you mean `regions`?",
        ),
        (
            "[kms.default]\nurl = \"aws-kms:alias/shop\"\nconnect_timeout = \"2\"\n",
            "`kms.default.connect_timeout` in encx.toml, line 2 is refused: `2` has no unit",
        ),
        (
            "[kms.default]\nregions = []\n",
            "`kms.default` in encx.toml, line 1 is refused: it has no `url`",
        ),
        (
            "[kms]\neu = 3\n",
            "`kms.eu` in encx.toml, line 2 is refused: it is a number; write a table",
        ),
    ] {
        let refused = File::new(text).refusal();
        assert!(refused.starts_with(says), "{refused}");
    }
}

#[tokio::test]
async fn aws_is_set_as_its_users_expect() {
    let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let region = ("AWS_REGION", "eu-central-1");
    // As set by `encx_env` of the Terraform modules.
    let settings = of_env(&[("AWS_KMS_KEY_ID", arn), region]).unwrap();
    assert_eq!(
        settings.describe().get("kms.default").unwrap().origin,
        "`AWS_KMS_KEY_ID`"
    );
    let kms = settings.kms().await.unwrap();
    assert_eq!(kms.primary().unwrap().default_kek().unwrap().as_str(), arn);
    let kek_of = async |variables: &[(&str, &str)]| {
        let kms = of_env(variables).unwrap().kms().await.unwrap();
        kms.primary().unwrap().default_kek().map(ToString::to_string)
    };
    let alias = "alias/shop-pii".to_owned();
    assert_eq!(
        kek_of(&[("ENCX_KMS", "aws-kms:alias/shop-pii"), region]).await,
        Some(alias)
    );
    assert_eq!(
        kek_of(&[("ENCX_KMS", &format!("aws-kms:{arn}"))])
            .await
            .as_deref(),
        Some(arn)
    );
    assert_eq!(
        kek_of(&[("ENCX_KMS", "aws-kms:"), ("AWS_KMS_KEY_ID", arn)])
            .await
            .as_deref(),
        Some(arn)
    );
    assert_eq!(kek_of(&[("ENCX_KMS", "aws-kms:"), region]).await, None);
    let refused = of_env(&[("ENCX_KMS", "aws-kms:arn:aws:s3:::shop"), region])
        .unwrap()
        .kms()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with(
            "the KMS `default`, which `ENCX_KMS` names, cannot be used: `arn:aws:s3:::shop`, which `default_kek` sets, is no key of AWS KMS"
        ),
        "{refused}"
    );
    // The output `encx_config` of the Terraform modules.
    let file = File::new(&format!(
        "[kms.default]\nurl = \"aws-kms:{arn}\"\nregions = [\"eu-central-1\",\"eu-west-1\"]\n\n[kek]\ndefault = \"{arn}\"\n"
    ));
    file.load().unwrap().kms().await.unwrap();
}

#[tokio::test]
async fn a_scheme_of_the_programs_own_can_be_named() {
    let file = File::new(
        "[kms.hsm]\nurl = \"acme-kms:vault-7\"\nslot = 3\npin_file = \"/run/pin\"\nlabels = [\"a\", \"b\"]\n",
    );
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let loader = |answer: Result<(), &'static str>| {
        Loader::new()
            .env([("ACME_TOKEN", "s3cret")])
            .file(&file.path)
            .kms_scheme("acme-kms", move |url| async move {
                assert_eq!(
                    (url.name().as_str(), url.scheme(), url.rest()),
                    ("hsm", "acme-kms", "vault-7")
                );
                assert_eq!((url.option("slot"), url.list("labels").len()), (Some("3"), 2));
                assert_eq!(
                    (url.env("ACME_TOKEN"), url.env("ACME_OTHER")),
                    (Some("s3cret"), None)
                );
                OPENED.fetch_add(1, Ordering::Relaxed);
                answer?;
                Ok(MemoryKms::new())
            })
    };
    let settings = loader(Ok(())).load().unwrap();
    assert!(
        !format!("{:?}", settings.describe()).contains("/run/pin"),
        "another scheme's options may be secret"
    );
    let kms = settings.kms().await.unwrap();
    assert_eq!(
        (kms.primary_name().as_str(), OPENED.load(Ordering::Relaxed)),
        ("hsm", 1)
    );
    let failed = loader(Err("the token expired; ask Acme for another"))
        .load()
        .unwrap()
        .kms()
        .await
        .unwrap_err();
    let failed = file.shorten(&failed.to_string());
    assert_eq!(
        failed,
        "the KMS `hsm`, which `kms.hsm.url` in encx.toml, line 2 names, cannot be used: the token expired; ask Acme for another"
    );
}

#[tokio::test]
async fn a_service_does_not_start_without_its_kms_unless_it_may() {
    let kms = MemoryKms::new();
    kms.fail_until_cleared(KmsErrorKind::Unavailable);
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}?mode=rwc", folder.path().join("keys.db").display());
    let load = |variables: &[(&str, &str)]| {
        let kms = kms.clone();
        let variables = [
            &[("ENCX_KMS", "acme-kms:vault"), ("ENCX_KEY_STORE", &database)],
            variables,
        ]
        .concat();
        let loader = Loader::new().env(variables);
        let loader = loader.kms_scheme("acme-kms", move |_| {
            let kms = kms.clone();
            async move { Ok(kms) }
        });
        loader.load().unwrap()
    };
    load(&[]).key_store().await.unwrap().migrate().await.unwrap();
    let refused = load(&[]).crypto().await.unwrap_err();
    assert!(refused.to_string().contains("memory/default"), "{refused}");
    let may = load(&[("ENCX_OUTAGE_START_WITHOUT_KMS", "true")]);
    may.crypto().await.unwrap();
    kms.clear_faults();
    load(&[]).crypto().await.unwrap();
}
