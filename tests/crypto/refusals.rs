//! What is refused, one test each: moved, changed, crafted and planted values, and key states.

use encx::keys::{DataKeyId, KeyState, KeyUsage};
use encx::kms::{KeyManagementService, KmsContext, KmsErrorKind, KmsName};
use encx::store::{StoreError, StoredWrap};
use encx::suite::Suite;
use encx::{Aad, Ciphertext, EncryptionContext, Error, Field};
use encx_test_support::{HarnessExt, NAME, SSN, context};
use encx_testkit::{Harness, MemoryKms};

#[tokio::test]
async fn a_ciphertext_opens_in_its_own_place_only() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
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
        assert!(
            matches!(refused, Error::Decrypt { .. }),
            "{elsewhere:?}: {refused}"
        );
    }
    let other_tenant = crypto.decrypt(&b, &sealed, SSN.row(7)).await.unwrap_err();
    assert!(
        matches!(other_tenant, Error::UnknownKey { id, .. } if id == sealed.key_id()),
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
    let crypto = Harness::new().await.process().await;
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
            _ => matches!(refused, Error::Decrypt { .. }),
        };
        assert!(expected, "bit {at}: {refused}");
    }
}

#[tokio::test]
async fn a_crafted_uncommitted_ciphertext_is_refused() {
    let harness = Harness::new().await;
    let context = context("a");
    let crypto = harness.process().await;
    crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    let calls = harness.kms().calls();

    // An attacker who knows the key can write suite 2, even if the service writes another.
    let attacker = harness
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
                suite: Suite::Xaes256Gcm,
                ..
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
        harness.kms().calls().unwrap,
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
        Err(Error::Decrypt { .. })
    ));
    let misbuilt = harness.builder().encrypt_with(Suite::Xaes256Gcm).build().await;
    assert!(matches!(misbuilt, Err(Error::Config { what }) if what.contains("accept_uncommitted")));
}

#[tokio::test]
async fn input_that_cannot_be_sealed_makes_no_key() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let context = context("a");
    let long = vec![0; encx::limits::MAX_PLAINTEXT_LEN + 1];
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
    assert_eq!(harness.kms().calls().total(), 0);
    assert_eq!(harness.store().records(), []);

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

/// Plants a data key that an attacker knows, who can write rows and use some KEK.
async fn plant(harness: &Harness, context: &EncryptionContext, kek: &str) -> DataKeyId {
    let id = DataKeyId::generate(1, None).unwrap();
    let pairs = KmsContext::new(context, KeyUsage::Data, id);
    let made = harness
        .kms()
        .generate_data_key(&kek.parse().unwrap(), &pairs)
        .await
        .unwrap();
    harness.store().tamper(|rows| {
        let mut row = rows.pop().unwrap();
        row.id = id;
        row.key_check = made.key.check(id);
        row.wraps = vec![StoredWrap::new(KmsName::default(), made.wrapped)];
        rows.push(row);
    });
    id
}

#[tokio::test]
async fn a_row_whose_kek_is_not_allowed_is_refused_before_any_call() {
    let harness = Harness::new().await;
    harness.kms().create_kek("memory/attacker");
    harness.kms().create_kek("memory/retired");
    let context = context("a");
    harness
        .process()
        .await
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap();
    let id = plant(&harness, &context, "memory/attacker").await;

    let calls = harness.kms().calls().unwrap;
    let crypto = harness.process().await;
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
    assert_eq!(harness.kms().calls().unwrap, calls);

    // Only the operator can allow a KEK.
    let crypto = harness
        .builder()
        .also_unwrap("memory/attacker")
        .build()
        .await
        .unwrap();
    assert!(crypto.encrypt(&context, "x", SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_row_that_names_an_unregistered_kms_is_refused() {
    let harness = Harness::new().await;
    let context = context("a");
    harness
        .process()
        .await
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap();
    harness
        .store()
        .tamper(|rows| rows[0].wraps[0].kms = "elsewhere".parse().unwrap());
    let refused = harness
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
    type Edit = fn(&mut Vec<encx::store::KeyRecord>);
    let edits: [(&str, Edit); 5] = [
        ("its context was edited", |rows| {
            rows[0].context.insert("tenantId".into(), "b".into());
        }),
        ("a pair was added", |rows| {
            rows[0].context.insert("more".into(), "x".into());
        }),
        ("its usage was edited", |rows| rows[0].usage = KeyUsage::Index),
        ("it was moved from another tenant", |rows| {
            rows[0].scope = rows[1].scope;
        }),
        ("another tenant's key was put in its place", |rows| {
            let other = rows[1].clone();
            rows[0].wraps = other.wraps;
            rows[0].key_check = other.key_check;
        }),
    ];
    for (what, edit) in edits {
        let harness = Harness::new().await;
        let crypto = harness.process().await;
        let sealed = crypto.encrypt(&a, "x", SSN.row(1)).await.unwrap();
        crypto.encrypt(&b, "x", SSN.row(1)).await.unwrap();
        harness.store().tamper(|rows| {
            rows.sort_by_key(|row| row.id != sealed.key_id());
            edit(rows);
        });
        let fresh = harness.process().await;
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
    let harness = Harness::new().await;
    let context = context("a");
    let crypto = harness.process().await;
    crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    let id = harness.store().records()[0].id;
    // An attacker with rights on the KEK wraps another key for the same id.
    let pairs = KmsContext::new(&context, KeyUsage::Data, id);
    let other = harness
        .kms()
        .generate_data_key(&MemoryKms::DEFAULT_KEK.parse().unwrap(), &pairs)
        .await
        .unwrap();
    harness
        .store()
        .tamper(|rows| rows[0].wraps[0].wrapped = other.wrapped);
    let refused = harness
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
        let harness = Harness::new().await;
        let context = context("a");
        let sealed = harness
            .process()
            .await
            .encrypt(&context, "x", SSN.row(1))
            .await
            .unwrap();
        harness.store().tamper(|rows| {
            rows[0].state = state;
            rows[0].suspended_from = (state == Suspended).then_some(Active);
            if state == Destroyed {
                rows[0].wraps.clear();
            }
        });
        let crypto = harness.process().await;
        let read = crypto.decrypt(&context, &sealed, SSN.row(1)).await;
        let expected = match state {
            Active | Deactivated | PreActive => read.is_ok(),
            Suspended => matches!(read, Err(Error::Suspended { id, .. }) if id == sealed.key_id()),
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
        assert_eq!(harness.store().records().len(), 1, "nothing is minted silently");

        let tolerant = harness.builder().accept_compromised().build().await.unwrap();
        let read = tolerant.decrypt(&context, &sealed, SSN.row(1)).await;
        assert_eq!(
            read.is_ok(),
            matches!(state, Active | Deactivated | PreActive | Compromised),
            "{state}"
        );
    }
}
