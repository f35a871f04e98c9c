//! Server-sent events, as the WHATWG's standard defines them.

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Its type; `message` without one.
    pub name: String,
    /// Its data.
    pub data: String,
    /// The id of this event, or of the last one that had one.
    pub id: Option<String>,
}

/// An event of the stream is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTooLong;

/// The longest line and event; the state of an operator has some kilobytes.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Parses a stream from pieces of any length.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    line: Vec<u8>,
    after_return: bool,
    is_started: bool,
    name: String,
    data: String,
    has_data: bool,
    id: Option<String>,
}

impl EventParser {
    /// The events that this piece completes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    events.extend(self.end_line());
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                return Err(EventTooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<ServerEvent> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let line = if self.is_started { &*text } else { text.trim_start_matches('\u{feff}') };
        self.is_started = true;
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            // A comment, such as the heartbeat, or a field that clients do not need.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<ServerEvent> {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(ServerEvent { name, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\n\nid: 7\nevent: change\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:x\n\nevent: empty\n\nid: 9\n\ndata\n\nunknown: y\ndata: z\n\ndata: cut";

    fn event(name: &str, data: &str, id: &str) -> ServerEvent {
        ServerEvent { name: name.to_owned(), data: data.to_owned(), id: Some(id.to_owned()) }
    }

    #[test]
    fn events_are_the_same_for_pieces_of_any_length() {
        let expected = [
            event("change", "{\"a\":\n1}", "7"),
            event("message", "x", "7"),
            event("message", "", "9"),
            event("message", "z", "9"),
        ];
        for length in 1..STREAM.len() {
            let mut parser = EventParser::default();
            let pieces = STREAM.as_bytes().chunks(length);
            let found: Vec<ServerEvent> = pieces.flat_map(|piece| parser.push(piece).unwrap()).collect();
            assert_eq!(found, expected, "{length}");
        }
    }

    #[test]
    fn endless_event_is_an_error() {
        let mut parser = EventParser::default();
        let piece = vec![b'x'; 1024 * 1024];
        let pushed: Vec<_> = (0..10).map(|_| parser.push(&piece)).collect();
        assert!(pushed[0].is_ok() && pushed[9] == Err(EventTooLong));
    }
}
