//! The exchanges on a connection: one request at a time, and the check of its reply.

/// One side of a request and reply. An exchange belongs to one connection at a time.
pub trait Exchange: Send {
    /// Moves on to the next request.
    fn next(&mut self);
    /// The bytes of the request under way.
    fn request(&self) -> &[u8];
    /// Checks received bytes. Ok(true) when they end the reply; bytes beyond its end are an error.
    fn reply(&mut self, bytes: &[u8]) -> Result<bool, String>;
}

/// Echo of `size` bytes that differ from request to request and from connection to connection.
pub struct Echo {
    bytes: Vec<u8>,
    size: usize,
    start: usize,
    seen: usize,
}

/// How many different requests one connection sends before they repeat.
const SHIFTS: usize = 509;

impl Echo {
    pub fn new(size: usize, seed: u64) -> Echo {
        // xorshift64*: cheap, never zero, and no two connections start with the same value.
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let bytes = std::iter::repeat_with(|| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
        });
        Echo { bytes: bytes.take(size + SHIFTS).collect(), size, start: SHIFTS - 1, seen: 0 }
    }
}

impl Exchange for Echo {
    fn next(&mut self) {
        self.start = (self.start + 1) % SHIFTS;
        self.seen = 0;
    }

    fn request(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let from = self.seen;
        self.seen += bytes.len();
        if self.seen > self.size {
            return Err(format!("echo of {} bytes where {} were sent", self.seen, self.size));
        }
        if self.request()[from..self.seen] != *bytes {
            return Err(format!("echo differs within bytes {from}..{}", self.seen));
        }
        Ok(self.seen == self.size)
    }
}

/// The expected body of an HTTP reply.
#[derive(Clone)]
pub enum Body {
    Bytes(Vec<u8>),
    Length(usize),
}

/// `GET` over one kept-alive HTTP/1.1 connection. The reply must be a 200 with a Content-Length.
pub struct Http {
    request: Vec<u8>,
    body: Body,
    buffer: Vec<u8>,
}

/// A longer head is treated as garbage.
const MAX_HEAD: usize = 64 * 1024;

impl Http {
    pub fn new(host: &str, path: &str, body: Body) -> Http {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n");
        Http { request: request.into_bytes(), body, buffer: Vec::new() }
    }

    /// Whether `data` is a whole and right reply; Ok(false) when more must come.
    fn check(&self, data: &[u8]) -> Result<bool, String> {
        let Some(end) = data.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if data.len() > MAX_HEAD { Err("no end of the reply's head".into()) } else { Ok(false) };
        };
        let (head, body) = (&data[..end], &data[end + 4..]);
        if !head.starts_with(b"HTTP/1.1 200 ") {
            let line = head.split(|b| *b == b'\r').next().unwrap_or(head);
            return Err(format!("status line is {:?}", String::from_utf8_lossy(line)));
        }
        let length = content_length(head).ok_or("reply without a valid Content-Length")?;
        if body.len() < length {
            return Ok(false);
        }
        if body.len() > length {
            return Err(format!("{} bytes after the reply", body.len() - length));
        }
        match &self.body {
            Body::Bytes(bytes) if bytes == body => Ok(true),
            Body::Length(bytes) if *bytes == length => Ok(true),
            _ => Err(format!("wrong body of {length} bytes")),
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|b| *b == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

impl Exchange for Http {
    fn next(&mut self) {
        self.buffer.clear();
    }

    fn request(&self) -> &[u8] {
        &self.request
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<bool, String> {
        // A reply mostly comes whole; then it is checked in the buffer that received it.
        if self.buffer.is_empty() {
            let whole = self.check(bytes)?;
            if !whole {
                self.buffer.extend_from_slice(bytes);
            }
            return Ok(whole);
        }
        self.buffer.extend_from_slice(bytes);
        self.check(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_takes_its_own_bytes_in_any_pieces() {
        let mut echo = Echo::new(10, 1);
        for _ in 0..SHIFTS + 2 {
            echo.next();
            let sent = echo.request().to_vec();
            assert_eq!(echo.reply(&sent[..3]), Ok(false));
            assert_eq!(echo.reply(&sent[3..]), Ok(true));
        }
    }

    #[test]
    fn echo_refuses_a_changed_byte_and_a_byte_too_many() {
        let mut echo = Echo::new(10, 1);
        echo.next();
        let mut sent = echo.request().to_vec();
        sent[9] ^= 1;
        assert!(echo.reply(&sent).is_err());
        echo.next();
        let sent = [echo.request(), b"x"].concat();
        assert!(echo.reply(&sent).is_err());
    }

    #[test]
    fn requests_and_connections_differ() {
        let (mut one, mut two) = (Echo::new(1024, 1), Echo::new(1024, 2));
        one.next();
        two.next();
        assert_ne!(one.request(), two.request());
        let first = one.request().to_vec();
        one.next();
        assert_ne!(first, one.request());
    }

    fn http() -> Http {
        Http::new("localhost", "/", Body::Bytes(b"Hello, World!\n".to_vec()))
    }

    #[test]
    fn http_takes_a_right_reply_whole_or_byte_by_byte() {
        let reply = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 14\r\n\r\nHello, World!\n";
        assert_eq!(http().reply(reply), Ok(true));
        let mut http = http();
        let (last, rest) = reply.split_last().expect("not empty");
        for byte in rest {
            assert_eq!(http.reply(&[*byte]), Ok(false));
        }
        assert_eq!(http.reply(&[*last]), Ok(true));
    }

    #[test]
    fn http_refuses_what_is_wrong() {
        for reply in [
            "HTTP/1.1 500 Oh\r\nContent-Length: 14\r\n\r\nHello, World!\n",
            "HTTP/1.1 200 OK\r\n\r\nHello, World!\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, World?\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!",
            "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, World!\nHTTP",
        ] {
            assert!(http().reply(reply.as_bytes()).is_err(), "{reply}");
        }
    }

    #[test]
    fn http_may_be_asked_for_a_length_only() {
        let mut http = Http::new("localhost", "/", Body::Length(3));
        assert_eq!(http.reply(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), Ok(true));
        http.next();
        assert!(http.reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").is_err());
    }
}
