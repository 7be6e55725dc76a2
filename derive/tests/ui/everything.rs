// All mistakes of a struct at once, including several in one attribute.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(tabel = "users", context("tenantId" = tenant, tenantId = id, "purpose" = 7, "region" = region), fragment = 1, crate = "a b")]
#[encx(encrypted(nmae = "Row", vis = "pubic", derive = Clone, attr(serde(skip))), 5)]
struct Everything {
    id: i64,
    region: String,
    #[encx(encrpyt, rename = 5, sql_column = "", encrypt = true)]
    email: String,
    #[encx(encrypt, encrypt, index(bits = "16", normalize = 7, nmae = "a", unique = true))]
    weight: f64,
    #[encx(id = 1, nested(prefx = "a"))]
    address: Vec<String>,
    #[encx(encrypt index(bits = 16))]
    name: String,
    #[encx]
    nothing: String,
}

fn main() {}
