//! Server-sent events out of bytes that may be cut anywhere.

/// Collects bytes and gives out the data of complete events.
#[derive(Default)]
pub struct Frames {
    held: Vec<u8>,
}

impl Frames {
    /// Adds bytes; returns the data of every event that is complete now. Comments carry none.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.held.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(end) = self.held.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.held.drain(..end + 2).collect();
            found.extend(
                event.split(|b| *b == b'\n').filter_map(|line| line.strip_prefix(b"data: ")).map(<[u8]>::to_vec),
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let stream = "data: {\"a\":\"ä\"}\n\n: keep-alive\n\ndata: [DONE]\n\n".as_bytes();
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            let mut found = frames.push(&stream[..cut]);
            found.extend(frames.push(&stream[cut..]));
            assert_eq!(found, ["{\"a\":\"ä\"}".as_bytes(), b"[DONE]"]);
        }
    }
}
