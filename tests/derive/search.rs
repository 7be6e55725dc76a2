//! Derived blind indexes: terms for queries, and verified candidates.

use encx::record::RecordError;
use encx::search::{BlindIndex, IndexField, Normalizer};
use encx::{Encrypt, Error};
use encx_testkit::Harness;

const ORDER_NUMBER: Normalizer = Normalizer::custom("order-number", 2, |text| Some(text.replace('-', "")));

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "people", context("tenantId" = tenant_id, "purpose" = "pii"))]
struct Person {
    #[encx(id)]
    id: i64,
    tenant_id: String,
    // A log-in knows an address and no tenant.
    #[encx(encrypt, rename = "mail")]
    #[encx(index(normalize = "email", bits = 64, context("purpose" = "login")))]
    email: String,
    #[encx(encrypt)]
    #[encx(index(normalize = "case-fold", bits = 8))]
    #[encx(index(name = "exact", bits = 128, unique, column = "name_unique"))]
    name: Option<String>,
    #[encx(encrypt, index(bits = 16, expecting = 1_000_000, normalize = ORDER_NUMBER))]
    order: String,
    #[encx(encrypt, index(bits = 16, insecure_small_domain))]
    year: i32,
}

fn person(id: i64, tenant: &str, email: &str) -> Person {
    Person {
        id,
        tenant_id: tenant.to_owned(),
        email: email.to_owned(),
        name: Some("Ada Lovelace".to_owned()),
        order: "A-1".to_owned(),
        year: 1815,
    }
}

#[tokio::test]
async fn a_log_in_finds_its_row_without_a_tenant() {
    let crypto = Harness::new().await.process().await;
    let people = [
        person(1, "t-1", "Ada@Example.org"),
        person(2, "t-2", "ada@example.org"),
        person(3, "t-1", "bob@example.org"),
    ];
    let rows = encx::record::encrypt_all(&crypto, &people).await.unwrap();
    let terms = Person::email_terms(&crypto, " ADA@example.org").await.unwrap();
    let found = |row: &&EncryptedPerson| terms.contains(&row.email_index);
    let found: Vec<_> = rows.iter().filter(found).cloned().collect();
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2]);
    // Bob is no match, even if chance had made him a candidate.
    let matching = Person::matching_email(&crypto, rows, "ada@EXAMPLE.org")
        .await
        .unwrap();
    assert_eq!(matching, people[..2]);
    let found = Person::matching_email(&crypto, found, "carol@example.org")
        .await
        .unwrap();
    assert!(found.is_empty());
}

/// With 8 bits, the fewest, two of some hundred names share a term. The query finds both; trusting it would admit the
/// wrong person.
#[tokio::test]
async fn candidates_that_share_a_term_by_chance_are_dropped() {
    const NAME: IndexField = IndexField::new("people", "name", 8).normalize(Normalizer::CaseFold);
    let crypto = Harness::new().await.process().await;
    let tenant = encx::EncryptionContext::from_pairs([("tenantId", "t-1"), ("purpose", "pii")]).unwrap();
    let term = async |name: &str| crypto.blind_index(&tenant, &NAME, name).await.unwrap();
    let ada = person(1, "t-1", "ada@example.org");
    let (of_ada, mut alike) = (term("Ada Lovelace").await, Vec::new());
    for number in 0.. {
        let name = format!("Person {number}");
        if term(&name).await == of_ada {
            alike.push(name);
        }
        if alike.len() == 4 {
            break;
        }
    }
    // The last one is not stored.
    let absent = alike.pop().unwrap();
    let others = (2..).zip(&alike).map(|(id, name)| Person {
        name: Some(name.clone()),
        ..person(id, "t-1", &format!("{id}@example.org"))
    });
    let people: Vec<_> = std::iter::once(ada.clone()).chain(others).collect();
    let rows = encx::record::encrypt_all(&crypto, &people).await.unwrap();

    let terms = Person::name_terms(&crypto, "t-1", "ada lovelace").await.unwrap();
    let is_found = |row: &EncryptedPerson| terms.contains(&row.name_index.unwrap());
    assert!(
        rows.len() == 4 && rows.iter().all(is_found),
        "the query finds all four"
    );
    let matching = async |name: &str| {
        Person::matching_name(&crypto, "t-1", rows.clone(), name)
            .await
            .unwrap()
    };
    assert_eq!(matching("ADA LOVELACE").await, [ada]);
    assert_eq!(matching(&alike[1]).await, [people[2].clone()]);
    assert!(matching(&absent).await.is_empty());
    // The same by hand.
    assert!(NAME.is_same("Ada Lovelace", "ADA LOVELACE").unwrap());
    assert!(!NAME.is_same("Ada Lovelace", &absent).unwrap());
}

#[tokio::test]
async fn an_index_in_the_structs_context_asks_for_the_tenant() {
    let crypto = Harness::new().await.process().await;
    let [first, second] = [person(1, "t-1", "a@b"), person(2, "t-2", "a@b")];
    let rows = encx::record::encrypt_all(&crypto, [&first, &second])
        .await
        .unwrap();
    let terms = Person::name_terms(&crypto, "t-1", "ADA LOVELACE").await.unwrap();
    assert!(terms.contains(&rows[0].name_index.unwrap()));
    assert!(
        !terms.contains(&rows[1].name_index.unwrap()),
        "another tenant, another key"
    );
    let exact = Person::name_exact_terms(&crypto, "t-1", "Ada Lovelace")
        .await
        .unwrap();
    assert!(exact.contains(&rows[0].name_exact_index.unwrap()));
    let year = Person::year_terms(&crypto, "t-2", 1815).await.unwrap();
    assert!(year.contains(&rows[1].year_index));
    let order = Person::order_terms(&crypto, "t-1", "A1").await.unwrap();
    assert!(order.contains(&rows[0].order_index));
    let of_first = vec![rows[0].clone()];
    let matching = Person::matching_name(&crypto, "t-1", of_first.clone(), "ada lovelace")
        .await
        .unwrap();
    assert_eq!(matching, [first]);
    let matching = Person::matching_name_exact(&crypto, "t-1", of_first, "ada lovelace")
        .await
        .unwrap();
    assert!(matching.is_empty());
    let other = Person::matching_name(&crypto, "t-1", rows, "ada lovelace").await;
    assert_is_of_another(&other.unwrap_err(), 1);
}

fn assert_is_of_another(error: &RecordError, row: usize) {
    let [failure] = error.failures() else {
        panic!("{error}");
    };
    assert_eq!((failure.row, &*failure.field), (row, RecordError::CONTEXT));
    assert!(matches!(failure.error, Error::OtherContext), "{error}");
    assert!(!error.is_retryable());
}

/// Mallory has her own tenant, and can write the table. She registers Ada's address there, with a password that she
/// knows. She makes the log-in of Ada's tenant find her row by copying Ada's terms into it.
#[tokio::test]
async fn a_row_of_another_tenant_is_refused_though_its_term_was_copied() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let [ada, mallory] = [
        person(1, "t-1", "ada@example.org"),
        person(2, "t-2", "ada@example.org"),
    ];
    let ada = ada.encrypt(&crypto).await.unwrap();
    let mut planted = mallory.encrypt(&crypto).await.unwrap();
    planted.name_index = ada.name_index;
    planted.year_index = ada.year_index;

    let terms = Person::name_terms(&crypto, "t-1", "Ada Lovelace").await.unwrap();
    assert!(terms.contains(&planted.name_index.unwrap()), "the query finds it");
    let cold = harness.process().await;
    let unwraps = harness.kms().calls().unwrap;
    let found = Person::matching_name(&cold, "t-1", [planted.clone()], "Ada Lovelace").await;
    assert_is_of_another(&found.unwrap_err(), 0);
    // The whole page is refused, and the error names the row.
    let rows = [ada.clone(), planted.clone()];
    let found = Person::matching_year(&cold, "t-1", rows.clone(), 1815).await;
    assert_is_of_another(&found.unwrap_err(), 1);

    // The index by address has no tenant in its context: a caller who knows the tenant passes it.
    let tenant = encx::EncryptionContext::from_pairs([("tenantId", "t-1"), ("purpose", "pii")]).unwrap();
    let found = Person::matching_email_in(&cold, &tenant, rows.clone(), "ada@example.org").await;
    assert_is_of_another(&found.unwrap_err(), 1);
    let page = encx::record::decrypt_all_in::<Person, _>(&cold, &tenant, rows).await;
    assert_is_of_another(&page.unwrap_err(), 1);
    assert_is_of_another(&planted.clone().decrypt_in(&cold, &tenant).await.unwrap_err(), 0);
    assert_eq!(harness.kms().calls().unwrap, unwraps, "nothing was decrypted");

    // A row that claims to be of Ada's tenant does not decrypt.
    planted.tenant_id = "t-1".to_owned();
    assert!(planted.decrypt_in(&crypto, &tenant).await.is_err());
    let found = Person::matching_email_in(&crypto, &tenant, [ada.clone()], "ada@example.org").await;
    assert_eq!(found.unwrap().len(), 1);
    assert_eq!(ada.decrypt_in(&crypto, &tenant).await.unwrap().id, 1);
}

/// Computed by hand, to check that the derived index is that of the attributes.
#[tokio::test]
async fn the_index_is_the_one_that_the_attributes_say() {
    const MAIL: IndexField = IndexField::new("people", "mail", 64).normalize(Normalizer::Email);
    let crypto = Harness::new().await.process().await;
    let row = person(1, "t-1", "a@b").encrypt(&crypto).await.unwrap();
    let login = encx::EncryptionContext::from_pairs([("purpose", "login")]).unwrap();
    let by_hand = crypto.blind_index(&login, &MAIL, "a@b").await.unwrap();
    assert_eq!(row.email_index, by_hand);
    let manifest = Person::encx_manifest();
    let indexes: Vec<_> = manifest
        .lines()
        .filter(|line| line.starts_with("index"))
        .collect();
    assert_eq!(
        indexes,
        [
            "index of mail as email/2, 64 bits, in people.mail_index, context purpose = \"login\"",
            "index of name as case-fold/1, 8 bits, in people.name_index",
            "index of name as exact/1, named exact, 128 bits, in people.name_unique",
            "index of order as order-number/2, 16 bits, in people.order_index",
            "index of year as exact/1, 16 bits, in people.year_index",
        ]
    );
}

#[tokio::test]
async fn null_is_not_indexed_and_what_cannot_be_fails_by_name() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    harness.kms().reset_calls();
    let mut person = person(1, "t-1", "no address");
    person.order = "1".repeat(encx::limits::MAX_INDEXED_LEN + 1);
    let error = person.encrypt(&crypto).await.unwrap_err();
    let names: Vec<_> = error.failures().iter().map(|failure| &*failure.field).collect();
    assert_eq!(names, ["email", "order"]);
    assert!(
        error
            .failures()
            .iter()
            .all(|failure| matches!(failure.error, Error::Index(_)))
    );
    assert!(!error.to_string().contains("no address"));
    assert_eq!(harness.kms().calls().total(), 0);

    (person.email, person.order, person.name) = ("a@b".to_owned(), "1".to_owned(), None);
    let row = person.encrypt(&crypto).await.unwrap();
    assert_eq!((row.name_index, row.name_exact_index), (None::<BlindIndex>, None));
    let refused: Result<_, RecordError> = Person::matching_email(&crypto, [row], "no address").await;
    assert_eq!(refused.unwrap_err().failures()[0].field, "email");
}

#[allow(dead_code, reason = "it has to compile, not to run")]
fn futures_are_send(crypto: &encx::Crypto, rows: Vec<EncryptedPerson>) {
    fn is_send(_: impl Send) {}
    is_send(Person::email_terms(crypto, "a@b"));
    is_send(Person::name_terms(crypto, "t-1", "a"));
    let context = &encx::EncryptionContext::from_pairs([("tenantId", "t-1")]).unwrap();
    is_send(Person::matching_email(crypto, rows.clone(), "a@b"));
    is_send(Person::matching_email_in(crypto, context, rows.clone(), "a@b"));
    is_send(Person::matching_name(crypto, "t-1", rows, "a"));
}

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "contacts", context("tenantId" = tenant_id))]
#[encx(index(name = "both", fields = [email(normalize = "email"), name(normalize = "trim")], bits = 64))]
struct Contact {
    #[encx(id)]
    id: i64,
    tenant_id: String,
    #[encx(encrypt, index(normalize = "email", bits = 64))]
    email: String,
    #[encx(encrypt, index(normalize = "case-fold", bits = 64))]
    name: String,
    #[encx(encrypt, index(normalize = "phone", bits = 64))]
    phone: Option<String>,
}

/// Empty is a value: its record is written, and found by values that normalize to empty.
#[tokio::test]
async fn an_empty_field_is_written_and_found() {
    let crypto = Harness::new().await.process().await;
    let contact = |id, email: &str, name: &str, phone: Option<&str>| Contact {
        id,
        tenant_id: "acme".to_owned(),
        email: email.to_owned(),
        name: name.to_owned(),
        phone: phone.map(str::to_owned),
    };
    let all = [
        contact(1, "", "", Some("")),
        contact(2, " ", "Ada", None),
        contact(3, "ada@example.org", "\u{a0}", Some("-")),
    ];
    let rows = encx::record::encrypt_all(&crypto, &all).await.unwrap();
    for (sought, ids) in [("", &[1, 2][..]), ("\t", &[1, 2]), ("ADA@example.org", &[3])] {
        let terms = Contact::email_terms(&crypto, "acme", sought).await.unwrap();
        let candidates = rows
            .iter()
            .filter(|row| terms.contains(&row.email_index))
            .cloned();
        let found = Contact::matching_email(&crypto, "acme", candidates, sought)
            .await
            .unwrap();
        assert_eq!(
            found.iter().map(|row| row.id).collect::<Vec<_>>(),
            ids,
            "{sought:?}"
        );
    }
    let phones = Contact::phone_terms(&crypto, "acme", "()").await.unwrap();
    let candidates = rows
        .iter()
        .filter(|row| row.phone_index.is_some_and(|index| phones.contains(&index)));
    assert_eq!(
        candidates.map(|row| row.id).collect::<Vec<_>>(),
        [1, 3],
        "NULL has no term"
    );
    for (sought, id) in [(("", ""), 1), (("", "Ada"), 2), (("ada@example.org", ""), 3)] {
        let found = Contact::matching_both(&crypto, "acme", rows.clone(), sought)
            .await
            .unwrap();
        assert_eq!(found, [all[id - 1].clone()]);
    }
    assert_eq!(
        encx::record::decrypt_all::<Contact, _>(&crypto, rows)
            .await
            .unwrap(),
        all
    );
}

#[tokio::test]
async fn any_case_finds_a_final_sigma() {
    let crypto = Harness::new().await.process().await;
    let people = ["ΝΙΚΟΣ@example.gr", "νικος@example.gr", "νικοσ@example.gr"];
    let rows: Vec<_> = (1..)
        .zip(people)
        .map(|(id, email)| person(id, "t-1", email))
        .collect();
    let rows = encx::record::encrypt_all(&crypto, &rows).await.unwrap();
    for sought in people {
        let terms = Person::email_terms(&crypto, sought).await.unwrap();
        assert!(
            rows.iter().all(|row| terms.contains(&row.email_index)),
            "{sought}"
        );
        let found = Person::matching_email(&crypto, rows.clone(), sought)
            .await
            .unwrap();
        assert_eq!(found.len(), 3, "{sought}");
    }
}
