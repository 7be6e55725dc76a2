//! The KEK rule, checked by the wraps it produces.

use encx::store::KeyQuery;
use encx::{EncryptionContext, Field};

use crate::File;

const SSN: Field = Field::new("users", "ssn");

const KMS: &str = "allow_insecure = true\nkey_store = \"sqlite::memory:\"\n[kms]\ndefault = \"memory:\"\neu = \"memory:\"\nold = \"memory:\"\n";

/// Encrypts under a purpose, and returns the KMS and KEK of each wrap of its key.
async fn wraps(text: &str, purpose: &str) -> Vec<String> {
    let settings = File::new(&format!("{KMS}{text}")).load().unwrap();
    let (kms, store) = (settings.kms().await.unwrap(), settings.key_store().await.unwrap());
    store.migrate().await.unwrap();
    let crypto = settings
        .builder_on(&kms, store.key_store())
        .unwrap()
        .build()
        .await
        .unwrap();
    let context = EncryptionContext::from_pairs([("purpose", purpose)]).unwrap();
    let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(1)).await.unwrap();
    let opened = crypto.decrypt(&context, &sealed, SSN.row(1)).await.unwrap();
    assert_eq!(opened.into_string().unwrap(), "123-45-6789");
    let page = store.key_store().page(&KeyQuery::new(10)).await.unwrap();
    let wraps = page.records.iter().flat_map(|record| &record.wraps);
    let mut wraps: Vec<_> = wraps
        .map(|wrap| format!("{}:{}", wrap.kms, wrap.wrapped.kek))
        .collect();
    wraps.sort();
    wraps
}

#[tokio::test]
async fn the_rule_chooses_by_default_and_by_pair() {
    assert_eq!(wraps("", "pii").await, ["default:memory/default"]);
    assert_eq!(
        wraps("[kek]\ndefault = \"eu:\"\n", "pii").await,
        ["eu:memory/default"]
    );
    assert_eq!(
        wraps(
            "[kek]\ndefault = { kms = \"eu\", kek = \"memory/default\" }\n",
            "pii"
        )
        .await,
        ["eu:memory/default"]
    );
    let logs = "[[kek.for]]\npair = \"purpose\"\nvalue = \"logs\"\nkek = \"eu:memory/default\"\n";
    assert_eq!(wraps(logs, "logs").await, ["eu:memory/default"]);
    assert_eq!(wraps(logs, "pii").await, ["default:memory/default"]);
}

#[tokio::test]
async fn further_keks_wrap_too() {
    let also = "[kek]\nalso_wrap = [\"eu:\"]\n";
    assert_eq!(
        wraps(also, "pii").await,
        ["default:memory/default", "eu:memory/default"]
    );
    let logs = "[[kek.for]]\npair = \"purpose\"\nvalue = \"logs\"\nkek = \"eu:\"\nalso_wrap = \"old:\"\nalso_unwrap = [\"default:\"]\n";
    assert_eq!(
        wraps(logs, "logs").await,
        ["eu:memory/default", "old:memory/default"]
    );
    assert_eq!(wraps(logs, "pii").await, ["default:memory/default"]);
}

#[tokio::test]
async fn keks_that_may_unwrap_open_what_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let base = format!(
        "allow_insecure = true\nkey_store = \"sqlite:{}/keys.db\"\n",
        folder.path().display()
    );
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "cd".repeat(32)).unwrap();
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let kms = |name: &str| {
        format!(
            "[kms.{name}]\nurl = \"local:{0}/{name}.encx\"\nkey_file = \"{0}/key\"\ncreate = true\n",
            folder.path().display()
        )
    };
    let both = format!("{base}{}{}", kms("old"), kms("new"));
    let load = |text: &str| File::new(&format!("{both}{text}")).load().unwrap();
    let old = load("[kek]\ndefault = \"old:\"\n");
    old.key_store().await.unwrap().migrate().await.unwrap();
    let context = EncryptionContext::from_pairs([("purpose", "pii")]).unwrap();
    let sealed = old
        .crypto()
        .await
        .unwrap()
        .encrypt(&context, "123", SSN.row(1))
        .await
        .unwrap();
    for (rule, opens) in [
        ("[kek]\ndefault = \"new:\"\nalso_unwrap = \"old:\"\n", true),
        (
            "[kek]\ndefault = \"new:\"\n[[kek.for]]\npair = \"purpose\"\nvalue = \"pii\"\nkek = \"new:\"\nalso_unwrap = \"old:\"\n",
            true,
        ),
        (
            "[kek]\ndefault = \"new:\"\n[[kek.for]]\npair = \"purpose\"\nvalue = \"logs\"\nkek = \"new:\"\nalso_unwrap = \"old:\"\n",
            false,
        ),
        ("[kek]\ndefault = \"new:\"\n", false),
    ] {
        let lazily = format!("{rule}[outage]\nconnect_lazily = true\n");
        let crypto = load(&lazily).crypto().await.unwrap();
        let opened = crypto.decrypt(&context, &sealed, SSN.row(1)).await;
        assert_eq!(opened.is_ok(), opens, "{rule}\n{opened:?}");
    }
}

#[test]
fn rules_that_cannot_hold_are_refused() {
    for (text, says) in [
        (
            "[kek]\nalso_unwrap = [\"eu:\", \"us:\"]\n",
            "`kek.also_unwrap` in encx.toml, line 8 is refused: no KMS `us` is configured; write one of `default`, `eu`, `old`, or \
             configure it with ENCX_KMS_US",
        ),
        (
            "[kek]\ndefault = 3\n",
            "`kek.default` in encx.toml, line 8 is refused: it is a number; write a KEK's name",
        ),
        (
            "[kek]\ndefault = { kms = \"eu\", keck = \"x\" }\n",
            "`kek.default` in encx.toml, line 8 is refused: `keck` is neither `kms` nor `kek`; write",
        ),
        (
            "[[kek.for]]\npair = \"encx:x\"\nvalue = \"logs\"\nkek = \"eu:\"\n",
            "`kek.for[1].pair` in encx.toml, line 8 is refused: no encryption context has this pair",
        ),
        (
            "[[kek.for]]\npair = \"purpose\"\nvalue = \"logs\"\n",
            "`kek.for[1]` in encx.toml, line 7 is refused: it has no `kek`",
        ),
        (
            "[[kek.for]]\npair = \"purpose\"\nvalue = \"logs\"\nkek = \"eu:\"\npurpose = 1\n",
            "`kek.for[1].purpose` in encx.toml, line 11 is not a setting",
        ),
    ] {
        let refused = File::new(&format!("{KMS}{text}")).refusal();
        assert!(refused.starts_with(says), "{refused}\n{says}");
    }
}
