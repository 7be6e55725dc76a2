//! What `Crypto` and `Keyring` encrypt, decrypt and refuse, on an in-memory KMS and key store.

use std::collections::HashSet;

use encx::testkit::{MemoryKeyStore, MemoryKms};
use encx::{
    Aad, Ciphertext, Crypto, CryptoBuilder, DataKeyId, EncryptionContext, Error, Field, KekChoice, KekRef,
    KeyManagementService, KeyState, KeyUsage, KmsContext, KmsErrorKind, StoreError, StoredWrap, Suite,
};

const SSN: Field = Field::new("users", "ssn");
const NAME: Field = Field::new("users", "name");

fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii")
        .build()
        .unwrap()
}

/// An in-memory KMS and key store, and processes on them.
#[derive(Default)]
struct World {
    kms: MemoryKms,
    store: MemoryKeyStore,
}

impl World {
    fn builder(&self) -> CryptoBuilder {
        Crypto::builder(self.kms.clone(), self.store.clone())
    }

    /// Starts one more process: it shares nothing but the KMS and the key store.
    async fn process(&self) -> Crypto {
        self.builder().build().await.unwrap()
    }
}

#[tokio::test]
async fn what_one_process_encrypts_another_decrypts() {
    let world = World::default();
    let (writer, reader) = (world.process().await, world.process().await);
    let context = context("a");
    for len in [0, 1, 15, 16, 17, 64, 1000, 70_000] {
        let plaintext = vec![0x5a; len];
        let sealed = writer.encrypt(&context, &plaintext, SSN.row(1)).await.unwrap();
        assert_eq!(sealed.plaintext_len(), len);
        assert_eq!(sealed.as_bytes().len(), len + 90);
        let parsed = Ciphertext::parse(sealed.as_bytes()).unwrap();
        assert_eq!(
            reader
                .decrypt(&context, &parsed, SSN.row(1))
                .await
                .unwrap()
                .as_bytes(),
            plaintext
        );
    }
    assert_eq!((world.kms.calls().generate, world.kms.calls().unwrap), (1, 1));
}

#[tokio::test]
async fn encrypting_twice_gives_different_ciphertexts() {
    let crypto = World::default().process().await;
    let mut seen = HashSet::new();
    for _ in 0..200 {
        assert!(seen.insert(crypto.encrypt(&context("a"), "same", SSN.row(1)).await.unwrap()));
    }
}

#[tokio::test]
async fn a_ciphertext_opens_in_its_own_place_only() {
    let world = World::default();
    let crypto = world.process().await;
    let (a, b) = (context("a"), context("b"));
    let sealed = crypto.encrypt(&a, "123", SSN.row(7)).await.unwrap();
    crypto.encrypt(&b, "456", SSN.row(7)).await.unwrap();

    for elsewhere in [
        SSN.row(8),
        SSN.row("7"),
        SSN.row((7, 7)),
        SSN.row_path(7, ["x"]),
        NAME.row(7),
        Field::new("user", "ssn").row(7),
        Aad::unbound(),
        Aad::free().text("users").text("ssn").integer(7),
    ] {
        let refused = crypto.decrypt(&a, &sealed, &elsewhere).await.unwrap_err();
        assert!(matches!(refused, Error::Decrypt), "{elsewhere:?}: {refused}");
    }
    let other_tenant = crypto.decrypt(&b, &sealed, SSN.row(7)).await.unwrap_err();
    assert!(
        matches!(other_tenant, Error::UnknownKey { id } if id == sealed.key_id()),
        "{other_tenant}"
    );
    for other in [
        EncryptionContext::builder().pair("tenantId", "a").build(),
        EncryptionContext::builder()
            .pair("tenantId", "a")
            .pair("purpose", "PII")
            .build(),
        EncryptionContext::builder()
            .pair("tenantId", "a")
            .pair("purpose", "pii")
            .pair("x", "y")
            .build(),
    ] {
        let refused = crypto
            .decrypt(&other.unwrap(), &sealed, SSN.row(7))
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::UnknownKey { .. }), "{refused}");
    }
    assert_eq!(
        crypto
            .decrypt(&a, &sealed, SSN.row(7))
            .await
            .unwrap()
            .as_str()
            .unwrap(),
        "123"
    );
}

#[tokio::test]
async fn every_changed_bit_is_refused() {
    let crypto = World::default().process().await;
    let context = context("a");
    let sealed = crypto.encrypt(&context, "some text", SSN.row(7)).await.unwrap();
    for at in 0..sealed.as_bytes().len() * 8 {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        let Ok(changed) = Ciphertext::parse(bytes) else {
            continue;
        };
        let refused = crypto.decrypt(&context, &changed, SSN.row(7)).await.unwrap_err();
        let expected = match at / 8 {
            1 => matches!(refused, Error::SuiteNotAccepted { .. }),
            2..=17 => matches!(refused, Error::UnknownKey { .. }),
            _ => matches!(refused, Error::Decrypt),
        };
        assert!(expected, "bit {at}: {refused}");
    }
}

#[tokio::test]
async fn a_crafted_uncommitted_ciphertext_is_refused() {
    let world = World::default();
    let context = context("a");
    let crypto = world.process().await;
    crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    let calls = world.kms.calls();

    // Whoever knows the key can write suite 2, whatever the service writes.
    let attacker = world
        .builder()
        .encrypt_with(Suite::Xaes256Gcm)
        .accept_uncommitted()
        .build()
        .await
        .unwrap();
    let crafted = attacker.encrypt(&context, "forged", SSN.row(1)).await.unwrap();
    assert_eq!(
        (crafted.suite(), crafted.as_bytes().len()),
        (Suite::Xaes256Gcm, 6 + 58)
    );
    assert_eq!(
        attacker
            .decrypt(&context, &crafted, SSN.row(1))
            .await
            .unwrap()
            .as_bytes(),
        b"forged"
    );

    let refused = crypto.decrypt(&context, &crafted, SSN.row(1)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::SuiteNotAccepted {
                suite: Suite::Xaes256Gcm
            }
        ),
        "{refused}"
    );
    let refused = crypto
        .decrypt_many([(&context, &crafted, SSN.row(1))])
        .await
        .remove(0)
        .unwrap_err();
    assert!(matches!(refused, Error::SuiteNotAccepted { .. }), "{refused}");
    let keyring = crypto.keyring(&context).await.unwrap();
    assert!(matches!(
        keyring.try_decrypt(&crafted, SSN.row(1)),
        Err(Error::SuiteNotAccepted { .. })
    ));
    assert_eq!(
        world.kms.calls().unwrap,
        calls.unwrap + 1,
        "only the attacker's own"
    );

    // The same bytes under the other suite's name do not open either.
    let committed = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    let mut renamed = committed.into_bytes();
    renamed[1] = 2;
    let renamed = Ciphertext::parse(renamed).unwrap();
    assert!(matches!(
        attacker.decrypt(&context, &renamed, SSN.row(1)).await,
        Err(Error::Decrypt)
    ));
    let misbuilt = world.builder().encrypt_with(Suite::Xaes256Gcm).build().await;
    assert!(matches!(misbuilt, Err(Error::Config { what }) if what.contains("accept_uncommitted")));
}

#[tokio::test]
async fn input_that_cannot_be_sealed_makes_no_key() {
    let world = World::default();
    let crypto = world.process().await;
    let context = context("a");
    let long = vec![0; encx::MAX_PLAINTEXT_LEN + 1];
    let too_long = crypto.encrypt(&context, &long, SSN.row(1)).await.unwrap_err();
    assert!(matches!(too_long, Error::PlaintextTooLong { found } if found == long.len()));
    assert!(matches!(
        crypto.encrypt(&context, "x", SSN.row("")).await,
        Err(Error::Aad(_))
    ));
    let many = crypto
        .encrypt_many([(&context, &long[..], SSN.row(1)), (&context, b"x", SSN.row(""))])
        .await;
    assert!(matches!(
        many[..],
        [Err(Error::PlaintextTooLong { .. }), Err(Error::Aad(_))]
    ));
    assert_eq!(world.kms.calls().total(), 0);
    assert_eq!(world.store.records(), []);

    let largest = crypto.encrypt(&context, &long[1..], SSN.row(1)).await.unwrap();
    assert_eq!(
        crypto
            .decrypt(&context, &largest, SSN.row(1))
            .await
            .unwrap()
            .as_bytes(),
        &long[1..]
    );
}

#[tokio::test]
async fn decryption_never_makes_a_key() {
    let world = World::default();
    let crypto = world.process().await;
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let refused = crypto
        .decrypt(&context("b"), &sealed, SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::UnknownKey { .. }));
    assert!(
        crypto.keyring(&context("c")).await.is_ok(),
        "a keyring may come before its key"
    );
    assert_eq!(world.store.records().len(), 1);
}

#[tokio::test]
async fn a_service_can_forbid_keys_on_first_use() {
    let world = World::default();
    let crypto = world.builder().create_on_first_use(false).build().await.unwrap();
    assert!(matches!(
        crypto.encrypt(&context("a"), "x", SSN.row(1)).await,
        Err(Error::NoKeys)
    ));
    assert_eq!(world.kms.calls().total(), 0);
    crypto.key_manager().create(&context("a")).await.unwrap();
    assert!(crypto.encrypt(&context("a"), "x", SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_keyring_works_without_waiting_once_its_key_is_there() {
    let world = World::default();
    let crypto = world.process().await;
    let context = context("a");
    let keyring = crypto.keyring(&context).await.unwrap();
    assert!(matches!(
        keyring.try_encrypt("x", SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert!(Error::NotReady.is_retryable());
    let sealed = keyring.encrypt("x", SSN.row(1)).await.unwrap();
    assert_eq!(keyring.try_decrypt(&sealed, SSN.row(1)).unwrap().as_bytes(), b"x");
    let again = keyring.try_encrypt("y", SSN.row(2)).unwrap();
    assert_eq!(
        crypto
            .decrypt(&context, &again, SSN.row(2))
            .await
            .unwrap()
            .as_bytes(),
        b"y"
    );

    let other = world.process().await.keyring(&context).await.unwrap();
    assert!(
        other.try_encrypt("z", SSN.row(3)).is_ok(),
        "`keyring` loads the active key"
    );
    assert_eq!(other.context(), context);
    assert_eq!(other.decrypt(&again, SSN.row(2)).await.unwrap().as_bytes(), b"y");
}

#[tokio::test]
async fn batches_mix_contexts_and_fail_item_by_item() {
    let world = World::default();
    let writer = world.process().await;
    let contexts: Vec<_> = (0..20).map(|n| context(&format!("t{n}"))).collect();
    let items: Vec<_> = (0..100)
        .map(|n| {
            (
                &contexts[n % 20],
                format!("value {n}"),
                SSN.row(i64::try_from(n).unwrap()),
            )
        })
        .collect();
    let sealed: Vec<_> = writer
        .encrypt_many(items)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(world.kms.calls().generate, 20);

    let polls = world.store.polls();
    let reader = world.process().await;
    while world.store.polls() == polls {
        // Its first poll would read once more what is read meanwhile.
        tokio::task::yield_now().await;
    }
    let loads = world.store.loads();
    let mut items: Vec<_> = (0..100)
        .map(|n| (&contexts[n % 20], &sealed[n], SSN.row(i64::try_from(n).unwrap())))
        .collect();
    items[3].2 = SSN.row(4);
    items[5].0 = &contexts[6];
    items[7].2 = SSN.row("");
    let opened = reader.decrypt_many(items).await;
    assert_eq!(
        world.store.loads(),
        loads + 2,
        "one query for all contexts, one for the unknown key"
    );
    assert_eq!(world.kms.calls().unwrap, 20);
    for (n, opened) in opened.into_iter().enumerate() {
        match n {
            3 => assert!(matches!(opened, Err(Error::Decrypt))),
            5 => assert!(matches!(opened, Err(Error::UnknownKey { .. }))),
            7 => assert!(matches!(opened, Err(Error::Aad(_)))),
            _ => assert_eq!(opened.unwrap().into_string().unwrap(), format!("value {n}")),
        }
    }
    assert!(
        reader
            .encrypt_many([(); 0].map(|()| (&contexts[0], "", SSN.row(1))))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn reencryption_is_due_after_a_rotation_and_for_another_suite() {
    let world = World::default();
    let crypto = world.process().await;
    let context = context("a");
    let old = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert!(!crypto.needs_reencryption(&context, &old).await.unwrap());
    crypto.key_manager().rotate(&context).await.unwrap();
    let new = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert!(crypto.needs_reencryption(&context, &old).await.unwrap());
    assert!(!crypto.needs_reencryption(&context, &new).await.unwrap());
    let keyring = crypto.keyring(&context).await.unwrap();
    assert!(keyring.needs_reencryption(&old).await.unwrap());

    let other = world
        .builder()
        .encrypt_with(Suite::Xaes256Gcm)
        .accept_uncommitted()
        .build()
        .await
        .unwrap();
    let calls = world.kms.calls().total();
    assert!(other.needs_reencryption(&context, &new).await.unwrap());
    assert_eq!(world.kms.calls().total(), calls, "no KMS is called");
    let unknown = crypto
        .needs_reencryption(&self::context("b"), &new)
        .await
        .unwrap_err();
    assert!(matches!(unknown, Error::UnknownKey { .. }));
}

/// Has an attacker who can write rows, and may use some KEK, plant a data key that they know.
async fn plant(world: &World, context: &EncryptionContext, kek: &str) -> DataKeyId {
    let id = DataKeyId::generate(1, None).unwrap();
    let pairs = KmsContext::new(context, KeyUsage::Data, id);
    let made = world
        .kms
        .generate_data_key(&kek.parse().unwrap(), &pairs)
        .await
        .unwrap();
    world.store.tamper(|rows| {
        let mut row = rows.pop().unwrap();
        row.id = id;
        row.key_check = made.key.check(id);
        row.wraps = vec![StoredWrap::new(Default::default(), made.wrapped)];
        rows.push(row);
    });
    id
}

#[tokio::test]
async fn a_row_whose_kek_is_not_allowed_is_refused_before_any_call() {
    let kms = MemoryKms::new()
        .with_kek("memory/attacker")
        .with_kek("memory/retired");
    let world = World {
        kms,
        ..World::default()
    };
    let context = context("a");
    world
        .process()
        .await
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap();
    let id = plant(&world, &context, "memory/attacker").await;

    let calls = world.kms.calls().unwrap;
    let crypto = world.process().await;
    let refused = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::KekNotAllowed { id: of, kek, .. } if *of == id && kek.as_str() == "memory/attacker"),
        "{refused}"
    );
    let refused = crypto.key_manager().rewrap(&context).await.unwrap_err();
    assert!(
        matches!(refused, Error::KekNotAllowed { .. }),
        "in rewrap too: {refused}"
    );
    assert_eq!(world.kms.calls().unwrap, calls);

    // Only the operator's own word allows a KEK.
    let crypto = world
        .builder()
        .also_unwrap("memory/attacker")
        .build()
        .await
        .unwrap();
    assert!(crypto.encrypt(&context, "x", SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_row_that_names_an_unregistered_kms_is_refused() {
    let world = World::default();
    let context = context("a");
    world
        .process()
        .await
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap();
    world
        .store
        .tamper(|rows| rows[0].wraps[0].kms = "elsewhere".parse().unwrap());
    let refused = world
        .process()
        .await
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::KekNotAllowed { .. }), "{refused}");
}

#[tokio::test]
async fn edited_rows_are_refused() {
    let (a, b) = (context("a"), context("b"));
    type Edit = fn(&mut Vec<encx::KeyRecord>);
    let edits: [(&str, Edit); 5] = [
        ("its context was edited", |rows| {
            rows[0].context.insert("tenantId".into(), "b".into());
        }),
        ("a pair was added", |rows| {
            rows[0].context.insert("more".into(), "x".into());
        }),
        ("its usage was edited", |rows| rows[0].usage = KeyUsage::Index),
        ("it was moved from another tenant", |rows| {
            rows[0].scope = rows[1].scope
        }),
        ("another tenant's key was put in its place", |rows| {
            let other = rows[1].clone();
            rows[0].wraps = other.wraps;
            rows[0].key_check = other.key_check;
        }),
    ];
    for (what, edit) in edits {
        let world = World::default();
        let crypto = world.process().await;
        let sealed = crypto.encrypt(&a, "x", SSN.row(1)).await.unwrap();
        crypto.encrypt(&b, "x", SSN.row(1)).await.unwrap();
        world.store.tamper(|rows| {
            rows.sort_by_key(|row| row.id != sealed.key_id());
            edit(rows);
        });
        let fresh = world.process().await;
        let tenants = [
            fresh.decrypt(&a, &sealed, SSN.row(1)).await,
            fresh.decrypt(&b, &sealed, SSN.row(1)).await,
        ];
        for refused in tenants {
            let refused = refused.unwrap_err();
            let typed = match &refused {
                Error::Store(StoreError::Corrupt { .. }) | Error::UnknownKey { .. } => true,
                Error::Kms(error) => error.kind() == KmsErrorKind::Integrity,
                _ => false,
            };
            assert!(typed, "{what}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_swapped_data_key_is_noticed_even_if_it_unwraps() {
    let world = World::default();
    let context = context("a");
    let crypto = world.process().await;
    crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    let id = world.store.records()[0].id;
    // Somebody with rights on the KEK wraps another key for the same id.
    let pairs = KmsContext::new(&context, KeyUsage::Data, id);
    let other = world
        .kms
        .generate_data_key(&MemoryKms::DEFAULT_KEK.parse().unwrap(), &pairs)
        .await
        .unwrap();
    world
        .store
        .tamper(|rows| rows[0].wraps[0].wrapped = other.wrapped);
    let refused = world
        .process()
        .await
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::KeyMismatch { id: of } if of == id),
        "{refused}"
    );
}

#[tokio::test]
async fn each_state_encrypts_and_decrypts_what_the_table_says() {
    use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
    for state in KeyState::ALL {
        let world = World::default();
        let context = context("a");
        let sealed = world
            .process()
            .await
            .encrypt(&context, "x", SSN.row(1))
            .await
            .unwrap();
        world.store.tamper(|rows| {
            rows[0].state = state;
            rows[0].suspended_from = (state == Suspended).then_some(Active);
            if state == Destroyed {
                rows[0].wraps.clear();
            }
        });
        let crypto = world.process().await;
        let read = crypto.decrypt(&context, &sealed, SSN.row(1)).await;
        let expected = match state {
            Active | Deactivated | PreActive => read.is_ok(),
            Suspended => matches!(read, Err(Error::Suspended { id }) if id == sealed.key_id()),
            Compromised => matches!(read, Err(Error::Compromised { .. })),
            _ => matches!(read, Err(Error::Destroyed { .. } | Error::Shredded)),
        };
        assert!(expected, "{state}: {read:?}");
        let written = crypto.encrypt(&context, "x", SSN.row(1)).await;
        let expected = match state {
            Active => written.is_ok(),
            Destroyed => matches!(written, Err(Error::Shredded)),
            _ => matches!(written, Err(Error::NoActiveKey)),
        };
        assert!(expected, "{state}: {written:?}");
        assert_eq!(world.store.records().len(), 1, "nothing is minted silently");

        let tolerant = world.builder().accept_compromised().build().await.unwrap();
        let read = tolerant.decrypt(&context, &sealed, SSN.row(1)).await;
        assert_eq!(
            read.is_ok(),
            matches!(state, Active | Deactivated | PreActive | Compromised),
            "{state}"
        );
    }
}

#[tokio::test]
async fn the_kek_rule_goes_from_closure_to_pair_to_default() {
    let kms = MemoryKms::new().with_kek("memory/logs").with_kek("memory/vip");
    let world = World {
        kms,
        ..World::default()
    };
    let crypto = world
        .builder()
        .kek("memory/default")
        .kek_for("purpose", "logs", "memory/logs")
        .kek_rule(|context| {
            let vip = context.get("tenantId") == Some("vip");
            vip.then(|| KekChoice::new(KekRef::try_from("memory/vip").unwrap()))
        })
        .build()
        .await
        .unwrap();
    let pairs = |tenant: &str, purpose: &str| {
        EncryptionContext::from_pairs([("tenantId", tenant), ("purpose", purpose)]).unwrap()
    };
    for (context, kek) in [
        (pairs("a", "pii"), "memory/default"),
        (pairs("a", "logs"), "memory/logs"),
        (pairs("vip", "logs"), "memory/vip"),
    ] {
        let sealed = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
        let record = world
            .store
            .records()
            .into_iter()
            .find(|record| record.id == sealed.key_id())
            .unwrap();
        assert_eq!(record.wraps[0].wrapped.kek.as_str(), kek);
        assert_eq!(crypto.key_manager().list(&context).await.unwrap(), [record]);
    }
}

#[tokio::test]
async fn an_alias_in_the_rule_finds_the_rows_it_wrapped() {
    let kms = MemoryKms::new()
        .with_kek("memory/1")
        .with_alias("alias/app", "memory/1")
        .with_kek("memory/2");
    let world = World {
        kms,
        ..World::default()
    };
    let context = context("a");
    let crypto = world.builder().kek("alias/app").build().await.unwrap();
    let sealed = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert_eq!(world.store.records()[0].wraps[0].wrapped.kek.as_str(), "memory/1");
    let reader = world.builder().kek("alias/app").build().await.unwrap();
    assert!(reader.decrypt(&context, &sealed, SSN.row(1)).await.is_ok());

    // The alias moves on: what it wrapped earlier is allowed only by name.
    world.kms.set_alias("alias/app", "memory/2");
    let reader = world.builder().kek("alias/app").build().await.unwrap();
    let refused = reader.decrypt(&context, &sealed, SSN.row(1)).await.unwrap_err();
    assert!(matches!(refused, Error::KekNotAllowed { .. }), "{refused}");
    let reader = world
        .builder()
        .kek("alias/app")
        .also_unwrap("memory/1")
        .build()
        .await
        .unwrap();
    assert!(reader.decrypt(&context, &sealed, SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn several_kmss_wrap_one_key_and_any_of_them_is_enough() {
    let (eu, us) = (
        MemoryKms::new().with_kek("memory/eu"),
        MemoryKms::new().with_kek("memory/us"),
    );
    let store = MemoryKeyStore::new();
    let build = || {
        let rule = |_: &EncryptionContext| {
            let kek = |kms, kek| KekRef::try_from((kms, kek)).unwrap();
            Some(KekChoice::new(kek("eu", "memory/eu")).also_wrap(kek("us", "memory/us")))
        };
        Crypto::builder(MemoryKms::new(), store.clone())
            .kms_named("eu", eu.clone())
            .kms_named("us", us.clone())
            .kek_rule(rule)
            .build()
    };
    let context = context("a");
    let sealed = build()
        .await
        .unwrap()
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap();
    assert_eq!(store.records()[0].wraps.len(), 2);
    assert_eq!((eu.calls().generate, us.calls().wrap), (1, 1));

    eu.set_unavailable(true);
    let reader = build().await.unwrap();
    assert!(
        reader.decrypt(&context, &sealed, SSN.row(1)).await.is_ok(),
        "the other region is enough"
    );
    us.set_kek_fault("memory/us", Some(KmsErrorKind::AccessDenied));
    let failed = build()
        .await
        .unwrap()
        .decrypt(&context, &sealed, SSN.row(1))
        .await
        .unwrap_err();
    assert!(
        failed.is_retryable(),
        "the one that may come back decides: {failed}"
    );
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_build() {
    let world = World::default();
    let refused = |builder: CryptoBuilder| async move { builder.build().await.unwrap_err() };
    for (wrong, says) in [
        (world.builder().kek(""), "is not empty"),
        (
            world.builder().kek(("eu", "k")),
            "no KMS is registered under the name `eu`",
        ),
        (world.builder().also_unwrap(("eu", "k")), "`eu`"),
        (world.builder().kek_for("a", "b", ("eu", "k")), "`eu`"),
        (
            world
                .builder()
                .kms_named("eu", MemoryKms::new())
                .kms_named("eu", MemoryKms::new()),
            "two KMSs",
        ),
        (world.builder().kms_named("default", MemoryKms::new()), "two KMSs"),
        (world.builder().ttl(Default::default()), "`ttl`"),
        (world.builder().state_ttl(Default::default()), "`state_ttl`"),
        (world.builder().max_keyrings(0), "`max_keyrings`"),
        (
            world.builder().max_concurrent_kms_calls(0),
            "`max_concurrent_kms_calls`",
        ),
    ] {
        let error = refused(wrong).await;
        assert!(error.to_string().contains(says), "{error}");
    }
    let none = Crypto::builder(MemoryKms::new().without_default_kek(), MemoryKeyStore::new());
    let refused = none
        .build()
        .await
        .unwrap()
        .encrypt(&context("a"), "x", SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NoKek), "{refused}");
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let world = World::default();
    let crypto = world.process().await;
    let context = context("a");
    let secret = "hunter2-the-secret";
    let sealed = crypto
        .encrypt(&context, secret, SSN.row("alice-the-row"))
        .await
        .unwrap();
    let opened = crypto
        .decrypt(&context, &sealed, SSN.row("alice-the-row"))
        .await
        .unwrap();
    let keyring = crypto.keyring(&context).await.unwrap();
    let refused = crypto
        .decrypt(&context, &sealed, SSN.row("bob"))
        .await
        .unwrap_err();
    let shown = format!(
        "{crypto:?} {keyring:?} {sealed:?} {opened:?} {refused:?} {refused} {:?} {:?} {:?}",
        world.builder(),
        crypto.key_manager(),
        SSN.row("alice-the-row"),
    );
    assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
    assert!(shown.contains("Plaintext([REDACTED])"));
}
