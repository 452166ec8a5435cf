//! Registrations of files that no descriptor of the loop names any more.
//!
//! A watched descriptor is closed, but its file lives on under another number (dup(2), a child process). The kernel keeps reporting it,
//! level-triggered in every wait, and no number names the registration. So a new instance takes over the registrations that are still
//! valid. That costs a few system calls for each source, so it waits until there were events in proportion.

use std::io;

use super::source::{Kind, Source, Watch};
use super::{Driver, Interest, Token};

/// How many sources one stale event counts for: the cost of taking one over is in proportion to a useless wait.
const SOURCES_PER_EVENT: usize = 32;

/// Signs that there are such registrations.
#[derive(Default)]
pub struct Stale {
    /// Events under unused tokens since the last new instance.
    events: usize,
    /// A watch that is reported without end.
    suspect: Option<Token>,
    /// A registration that ends every wait is known to be left.
    certain: bool,
    /// It is worth checking.
    any: bool,
}

impl Stale {
    /// An event came under an unused token.
    #[cold]
    pub fn count(&mut self) {
        self.events += 1;
        self.any = true;
    }

    #[cold]
    pub fn suspect(&mut self, token: Token) {
        self.suspect = Some(token);
        self.any = true;
    }

    #[cold]
    pub fn certain(&mut self) {
        self.certain = true;
        self.any = true;
    }

    #[inline]
    pub fn is_any(&self) -> bool {
        self.any
    }
}

impl<T> Driver<T> {
    #[cold]
    pub(super) fn deal_with_stale(&mut self) {
        self.stale.any = false;
        let orphan = self.stale.suspect.take().is_some_and(|token| match self.sources.get(token) {
            Some(Source { fd, kind: Kind::Watch(watch), .. }) => {
                !self.epoll.knows(*fd, token, watch.interest())
            }
            _ => false,
        });
        let many = self.stale.events > 1 + self.sources.len() / SOURCES_PER_EVENT;
        if !(orphan || many || self.stale.certain) {
            return;
        }
        match self.begin_anew() {
            Ok(()) => self.stale = Stale::default(),
            // No descriptor for it now. The next event asks again.
            Err(error) => tracing::debug!(%error, "no new epoll instance"),
        }
    }

    /// Moves the registrations to a new instance, except those whose number is another file by now.
    fn begin_anew(&mut self) -> io::Result<()> {
        let new = self.epoll.anew()?;
        let mut old = std::mem::replace(&mut self.epoll, new);
        for (token, source) in &self.sources {
            if self.by_fd.get(&source.fd) != Some(&token) || !old.remove(source.fd) {
                continue;
            }
            let fd = source.fd;
            let added = match &source.kind {
                Kind::Stream(_) => self.epoll.register_edge(fd, token, true),
                Kind::Datagram(datagram) => self.epoll.register_edge(fd, token, datagram.is_armed()),
                Kind::Listener(listener) if listener.is_suspended() && listener.is_shared() => Ok(()),
                Kind::Listener(listener) if listener.is_shared() => self.epoll.add_exclusive(fd, token),
                Kind::Listener(_) => self.epoll.register_edge(fd, token, false),
                Kind::Watch(watch) if watch.is_silent() => Ok(()),
                Kind::Watch(watch) => self.epoll.arm(fd, token, watch.interest(), true).map(drop),
            };
            if let Err(error) = added {
                tracing::warn!(fd, %error, "a descriptor is no longer reported");
            }
        }
        tracing::debug!(sources = self.sources.len(), "a new epoll instance");
        Ok(())
    }

    /// Gives a watch another token, under which it is armed.
    #[cold]
    pub(super) fn renew(&mut self, token: Token, interest: Interest) -> io::Result<Token> {
        let source = self.sources.remove(token).ok_or(io::ErrorKind::NotFound)?;
        let fd = source.fd;
        let mut watch = Watch::default();
        watch.set(interest);
        let token = self.sources.insert(Source { kind: Kind::Watch(watch), queued: false, ..source });
        self.by_fd.insert(fd, token);
        self.epoll.arm(fd, token, interest, false)?;
        Ok(token)
    }
}
