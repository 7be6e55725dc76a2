// What is private stays so in the struct that is written.
mod notes {
    use encx::Encrypt;

    #[derive(Encrypt)]
    #[encx(table = "notes", context("purpose" = "notes"))]
    pub struct Note {
        #[encx(id)]
        pub id: i64,
        #[encx(encrypt, index(bits = 64))]
        text: String,
    }

    #[derive(Encrypt)]
    #[encx(table = "drafts", context("purpose" = "notes"))]
    struct Draft {
        #[encx(id)]
        id: i64,
        #[encx(encrypt)]
        text: String,
    }
}

fn see(note: notes::EncryptedNote, draft: notes::EncryptedDraft) {
    let _ = (note.id, note.text, note.text_index);
}

fn main() {}
