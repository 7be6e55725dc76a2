// Invalid indexes over several fields.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(table = "patients", context("tenantId" = tenant_id))]
#[encx(index(fields = [last_name, born]))]
#[encx(index(name = "one", fields = [last_name], bits = 16, normalize = "trim"))]
#[encx(index(name = "none", bits = 16, weight, fields(last_name, born)))]
#[encx(index(name = "of others", fields = [tenant_id, prefs, absent, weight, id], bits = 4, context()))]
#[encx(index(name = "twice", fields = [last_name(normalise = "trim"), last_name(normalize = "trimmed"), last_name, 5], bits = 16))]
#[encx(index(name = "small", fields = [last_name, born], bits = 64, unique, column = "born"))]
#[encx(index(name = "last_name", fields = [last_name, born], bits = 64, column = "other"))]
struct Patient {
    #[encx(id)]
    id: i64,
    tenant_id: String,
    #[encx(encrypt, index(bits = 64, fields(born)))]
    last_name: String,
    #[encx(encrypt)]
    born: i32,
    #[encx(encrypt)]
    weight: Option<f32>,
    #[encx(json)]
    prefs: String,
}

#[derive(Encrypt)]
#[encx(fragment, index(name = "name", fields = [first, last], bits = 16))]
struct Name {
    #[encx(encrypt)]
    first: String,
    #[encx(encrypt)]
    last: String,
}

fn main() {}
