//! What a user of the client would notice.
