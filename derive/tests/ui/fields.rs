// Attributes of a field that exclude each other, and colliding columns.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Excluded {
    #[encx(id, encrypt)]
    id: i64,
    #[encx(encrypt, nested)]
    address: String,
    #[encx(json, nested)]
    prefs: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Columns {
    #[encx(id)]
    id: i64,
    #[encx(encrypt, rename = "email")]
    mail: String,
    #[encx(encrypt)]
    email: String,
    #[encx(rename = "id")]
    key: i64,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Borrowed<'a> {
    #[encx(id)]
    id: i64,
    #[encx(encrypt)]
    name: &'a str,
    #[encx(json)]
    tags: Option<&'a [String]>,
}

#[derive(Encrypt)]
#[encx(fragment, table = "users")]
struct Part {
    #[encx(id)]
    id: i64,
    #[encx(encrypt)]
    street: String,
}

fn main() {}
