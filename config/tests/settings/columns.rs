//! Columns declared in the file, compared with those of structs.

use std::panic::AssertUnwindSafe;

use encx::Encrypt;
use encx::search::Normalizer;
use encx_config::{assert_columns_match, columns_toml};

use crate::File;

#[derive(Encrypt)]
#[encx(table = "users", sql_table = "app.users", context("tenantId" = tenant, "purpose" = "pii"))]
#[allow(dead_code, reason = "only its columns are looked at")]
struct User {
    #[encx(id)]
    id: i64,
    tenant: String,
    #[encx(encrypt)]
    ssn: String,
    #[encx(encrypt)]
    email: String,
}

#[test]
fn what_is_written_for_structs_matches_them() {
    let columns = User::encx_columns();
    assert_eq!(columns.len(), 2);
    let toml = columns_toml(&columns);
    let file = File::new(&toml);
    let settings = file.load().unwrap();
    assert_columns_match(&settings, &columns);
    let read: Vec<_> = settings
        .columns()
        .iter()
        .map(|declared| declared.column.clone())
        .collect();
    assert_eq!(columns_toml(&read).lines().count(), toml.lines().count());

    // Other tables are ignored.
    let more = format!(
        "{toml}\n[[column]]\ntable = \"orders\"\ncolumn = \
         \"note\"\nid = [{{ column = \"shop\", kind = \"uuid\" }}, {{ column = \"nr\", kind = \"integer\" }}]\npath = [\"a\"]\nbound = \
         [\"state\"]\ncontext = {{ purpose = \"notes\" }}\n"
    );
    let settings = File::new(&more).load().unwrap();
    assert_columns_match(&settings, &columns);
    let note = &settings.columns()[2].column;
    assert_eq!((note.row_id.len(), note.path.len(), note.bound.len()), (2, 1, 1));
}

#[test]
fn what_differs_is_shown_line_by_line() {
    let columns = User::encx_columns();
    let toml = columns_toml(&columns[..1]).replace("kind = \"integer\"", "kind = \"uuid\"")
        + "\n[[column]]\ntable = \"users\"\nsql_table = \"app.users\"\ncolumn = \"phone\"\nid = { column = \"id\", kind = \"integer\" }\ncontext = { purpose = \"pii\" }\n";
    let file = File::new(&toml);
    let settings = file.load().unwrap();
    let difference = file.shorten(&settings.columns_difference(&columns).unwrap());
    for line in [
        "`app.users.ssn`, declared by `column[1]` in encx.toml, line 1, differs from the struct:",
        "    - id = { column = \"id\", kind = \"uuid\" }",
        "    + id = { column = \"id\", kind = \"integer\" }",
        "`app.users.email` is not declared; add:",
        "    + column = \"email\"",
        "`app.users.phone`, declared by `column[2]` in encx.toml, line 8, is in no struct that was given; remove it",
    ] {
        assert!(
            difference.lines().any(|shown| shown == line),
            "{line}\n\n{difference}"
        );
    }
    let failed =
        std::panic::catch_unwind(AssertUnwindSafe(|| assert_columns_match(&settings, &columns))).unwrap_err();
    assert!(
        failed
            .downcast_ref::<String>()
            .unwrap()
            .contains("encx.toml are not those of the structs")
    );
}

const BADGE: Normalizer = Normalizer::custom("badge", 3, |text| Some(text.to_owned()));

#[derive(Encrypt)]
#[encx(table = "people", context("tenantId" = tenant, "purpose" = "pii"))]
#[encx(index(name = "name_born", fields = [name(normalize = "case-fold"), born], bits = 16))]
#[allow(dead_code, reason = "only its columns are looked at")]
struct Person {
    #[encx(id)]
    id: i64,
    tenant: String,
    #[encx(encrypt, rename = "mail")]
    #[encx(index(normalize = "email", bits = 32, context("purpose" = "login", "tenantId" = tenant)))]
    email: String,
    #[encx(
        encrypt,
        index(bits = 8),
        index(name = "exact", bits = 128, unique, column = "name_unique")
    )]
    name: String,
    #[encx(encrypt, index(bits = 16, normalize = BADGE))]
    badge: String,
    #[encx(encrypt)]
    born: i32,
}

const MAIL_INDEX: &str = r#"index = { column = "mail_index", normalizer = "email", bits = 32, context = { purpose = "login", tenantId = { column = "tenant" } } }"#;
const NAME_INDEXES: &str = r#"index = [{ column = "name_index", normalizer = "exact", bits = 8 }, { column = "name_unique", name = "exact", normalizer = "exact", bits = 128 }, { column = "name_born_index", name = "name_born", normalizer = "case-fold", with = [{ column = "born", normalizer = "exact" }], bits = 16 }]"#;
const BADGE_INDEX: &str = r#"index = { column = "badge_index", normalizer = "custom/badge", bits = 16 }"#;

#[test]
fn blind_indexes_are_written_for_structs() {
    let columns = Person::encx_columns();
    let toml = columns_toml(&columns);
    let indexes: Vec<_> = toml.lines().filter(|line| line.starts_with("index")).collect();
    assert_eq!(indexes, [MAIL_INDEX, NAME_INDEXES, BADGE_INDEX]);
    let settings = File::new(&toml).load().unwrap();
    assert_columns_match(&settings, &columns);
    let read: Vec<_> = settings
        .columns()
        .iter()
        .map(|declared| declared.column.indexes.clone())
        .collect();
    let mut derived: Vec<_> = columns.into_iter().map(|column| column.indexes).collect();
    // A file keeps no order of the pairs.
    derived[0][0]
        .context
        .sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(read, derived);
}

/// The order in the file is not a difference, and neither is a normaliser that is left out.
#[test]
fn what_means_the_same_matches() {
    let columns = Person::encx_columns();
    let toml = columns_toml(&columns)
        .replace(
            MAIL_INDEX,
            r#"index = [{ bits = 32, column = "mail_index", context = { tenantId = { column = "tenant" }, purpose = "login" }, normalizer = "email" }]"#,
        )
        .replace(
            NAME_INDEXES,
            r#"index = [{ column = "name_unique", name = "exact", bits = 128 }, { column = "name_born_index", name = "name_born", normalizer = "case-fold", with = { column = "born" }, bits = 16 }, { column = "name_index", bits = 8 }]"#,
        );
    assert_columns_match(&File::new(&toml).load().unwrap(), &columns);
}

#[test]
fn an_index_that_differs_is_found() {
    let columns = Person::encx_columns();
    let toml = columns_toml(&columns);
    let changed = |from: &str, to: &str| {
        assert!(toml.contains(from), "{from}");
        let file = File::new(&toml.replace(from, to));
        let settings = file.load().unwrap();
        let failed = std::panic::catch_unwind(AssertUnwindSafe(|| assert_columns_match(&settings, &columns)));
        assert!(failed.is_err(), "{to}");
        file.shorten(&settings.columns_difference(&columns).unwrap())
    };
    // Missing in the file.
    let missing = changed(&format!("{BADGE_INDEX}\n"), "");
    assert!(
        missing.starts_with("`people.badge`, declared by `column[3]`")
            && missing.contains(&format!("    + {BADGE_INDEX}\n")),
        "{missing}"
    );
    for (from, to) in [
        // Each in the file other than in the struct.
        ("\"custom/badge\", bits = 16", "\"custom/badge\", bits = 15"),
        ("\"custom/badge\"", "\"custom/other\""),
        ("\"badge_index\"", "\"badge_term\""),
        (
            "normalizer = \"email\", bits = 32",
            "normalizer = \"lowercase\", bits = 32",
        ),
        ("purpose = \"login\"", "purpose = \"logout\""),
        (
            ", context = { purpose = \"login\", tenantId = { column = \"tenant\" } }",
            "",
        ),
        ("name = \"exact\", ", ""),
        (
            "{ column = \"name_index\", normalizer = \"exact\", bits = 8 }, ",
            "",
        ),
        ("with = [{ column = \"born\", normalizer = \"exact\" }], ", ""),
        (
            "{ column = \"born\", normalizer = \"exact\" }",
            "{ column = \"born\", normalizer = \"trim\" }",
        ),
    ] {
        let difference = changed(from, to);
        let signs = |sign: &str| difference.lines().filter(|line| line.starts_with(sign)).count();
        assert_eq!(
            (signs("    - index = "), signs("    + index = ")),
            (1, 1),
            "{difference}"
        );
    }
    // In the file, and not in the struct.
    let born = "column = \"born\"\nid = { column = \"id\", kind = \"integer\" }\n";
    let index = "index = { column = \"born_index\", normalizer = \"exact\", bits = 16 }";
    let more = changed(born, &format!("{born}{index}\n"));
    assert!(more.contains(&format!("    - {index}\n")), "{more}");
}

#[test]
fn an_adoption_names_its_plaintext_column_and_its_end() {
    let entry = |plaintext: &str| {
        File::new(&format!(
            "[[column]]\ntable = \"users\"\ncolumn = \"ssn\"\nid = {{ column = \"id\", kind = \"integer\" }}\ncontext = {{ purpose = \
             \"pii\" }}\nplaintext = {plaintext}\n"
        ))
    };
    for kind in ["bytes", "integer", "text", "uuid"] {
        let settings = entry(&format!(
            "{{ column = \"plain\", kind = \"{kind}\", until = \"2028-02-29\" }}"
        ));
        let declared = settings.load().unwrap().columns()[0].plaintext.clone().unwrap();
        assert_eq!(
            (
                declared.sql_column.as_str(),
                declared.kind.name(),
                declared.until.as_str()
            ),
            ("plain", kind, "2028-02-29")
        );
    }
    for (plaintext, says) in [
        (
            "{ kind = \"text\", until = \"2027-03-31\" }",
            "`column.plaintext` in encx.toml, line 6 is refused: it has no `column`",
        ),
        (
            "{ column = \"ssn\", kind = \"text\", until = \"2027-03-31\" }",
            "`column.plaintext.column` in encx.toml, line 6 is refused: `ssn` is the encrypted column",
        ),
        (
            "{ column = \"plain\", kind = \"json\", until = \"2027-03-31\" }",
            "`column.plaintext.kind` in encx.toml, line 6 is refused: `json` is no kind of plaintexts; write `text`",
        ),
        (
            "{ column = \"plain\", kind = \"text\" }",
            "`column.plaintext` in encx.toml, line 6 is refused: it has no `until`",
        ),
        (
            "{ column = \"plain\", kind = \"text\", until = \"2027-02-29\" }",
            "`column.plaintext.until` in encx.toml, line 6 is refused: `2027-02-29` is no day; write a day as YYYY-MM-DD",
        ),
        (
            "{ column = \"plain\", kind = \"text\", until = \"soon\" }",
            "`column.plaintext.until` in encx.toml, line 6 is refused: `soon` is no day",
        ),
        (
            "{ column = \"plain\", kind = \"text\", until = \"2027-03-31\", form = \"x\" }",
            "`column.plaintext.form` in encx.toml, line 6 is not a setting",
        ),
    ] {
        let refused = entry(plaintext).refusal();
        assert!(refused.starts_with(says), "{refused}\n{says}");
    }
    let bound = entry("{ column = \"plain\", kind = \"text\", until = \"2027-03-31\" }\nbound = [\"state\"]")
        .refusal();
    assert!(bound.contains("bound to others"), "{bound}");
}

#[test]
fn entries_that_cannot_be_used_are_refused() {
    let entry = |change: &str, by: &str| {
        let whole = "[[column]]\ntable = \"users\"\ncolumn = \"ssn\"\nid = { column = \"id\", kind = \"integer\" }\ncontext = { purpose = \
                     \"pii\" }\nindex = { column = \"ssn_index\", bits = 32 }\n";
        assert!(whole.contains(change));
        File::new(&whole.replace(change, by)).refusal()
    };
    for (change, by, says) in [
        (
            "\"integer\"",
            "\"number\"",
            "`column.id.kind` in encx.toml, line 4 is refused: `number` is no kind of row ids; write `integer`",
        ),
        (
            "table = \"users\"\n",
            "",
            "`column[1]` in encx.toml, line 1 is refused: it has no `table`",
        ),
        (
            "id = { column = \"id\", kind = \"integer\" }\n",
            "",
            "`column[1]` in encx.toml, line 1 is refused: it has no `id`",
        ),
        (
            "{ purpose = \"pii\" }",
            "{}",
            "`column[1]` in encx.toml, line 1 is refused: it has no `context`",
        ),
        (
            "bits = 32",
            "bits = 3",
            "`column.index.bits` in encx.toml, line 6 is refused: 3 is out of range; write a whole number from 8",
        ),
        (
            "\"ssn_index\"",
            "\"ssn\"",
            "`column.index` in encx.toml, line 6 is refused: `ssn` is the encrypted column",
        ),
        (
            "{ column = \"ssn_index\", bits = 32 }",
            "[{ column = \"a\", bits = 32 }, { column = \"a\", name = \"b\", bits = 8 }]",
            "`column.index` in encx.toml, line 6 is refused: `a` has another index of this column",
        ),
        (
            "bits = 32",
            "bits = 32, with = [{ normalizer = \"email\" }]",
            "`column.index.with` in encx.toml, line 6 is refused: it has no `column`; write `{ column = \"born\" }`",
        ),
        (
            "bits = 32",
            "bits = 32, with = [{ column = \"b\", bits = 8 }]",
            "`column.index.with.bits` in encx.toml, line 6 is not a setting",
        ),
        (
            "bits = 32",
            "bits = 32, with = [{ column = \"b\" }, { column = \"c\" }, { column = \"d\" }, { column = \"e\" }, { column = \"f\" }, { column = \"g\" }, { column = \"h\" }, { column = \"i\" }]",
            "`column.index` in encx.toml, line 6 is refused: it is over 9 columns; write at most 8",
        ),
        (
            "bits = 32",
            "bits = 32, context = { purpose = 3 }",
            "`column.index.context.purpose` in encx.toml, line 6 is refused: it is a number",
        ),
        (
            "bits = 32",
            "bits = 32, normalizer = \"mail\"",
            "`column.index.normalizer` in encx.toml, line 6 is refused: `mail` is no normaliser",
        ),
        (
            "index =",
            "indx =",
            "`column[1].indx` in encx.toml, line 6 is not a setting; did you mean `index`?",
        ),
        (
            "\"pii\"",
            "{ colum = \"x\" }",
            "`column.context.purpose` in encx.toml, line 5 is refused: it has no `column`",
        ),
    ] {
        let refused = entry(change, by);
        assert!(refused.starts_with(says), "{refused}\n{says}");
    }
    let twice = columns_toml(&User::encx_columns()[..1]).repeat(2);
    let refused = File::new(&twice).refusal();
    assert!(
        refused.contains("`app.users.ssn` is declared twice, first by `column[1]` in encx.toml, line 1"),
        "{refused}"
    );
}
