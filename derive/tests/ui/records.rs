// Missing and repeated attributes of a struct. All mistakes of a struct are reported at once.
use encx::Encrypt;

#[derive(Encrypt)]
struct Nothing {
    email: String,
}

#[derive(Encrypt)]
#[encx(table = "", tabel = "users", context(), encrypted(named = "X"))]
struct Misspelt {
    #[encx(id(kind = "number"))]
    id: i64,
    #[encx(encrpyt)]
    email: String,
    #[encx(encrypt, rename = 5)]
    name: String,
}

#[derive(Encrypt)]
#[encx(table = "users", table = "people")]
#[encx(context("tenantId" = tenant, "TENANTID" = email, "purpose" = 7))]
struct Contexts {
    #[encx(id)]
    id: i64,
    #[encx(encrypt)]
    email: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("tenantId" = tenant, "TENANTID" = email, "encx:v" = "1"))]
struct Pairs {
    #[encx(id)]
    id: i64,
    #[encx(encrypt)]
    email: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("tenantId" = tenant, "price" = price))]
struct Printed {
    #[encx(id)]
    id: i64,
    tenant: Option<i64>,
    price: f64,
    #[encx(encrypt, index(bits = 64, context("tenantId" = tenant)))]
    email: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
enum Choice {
    A { id: i64 },
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Tuple(i64, String);

fn main() {}
