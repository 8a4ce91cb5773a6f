//! Requests that carry an `Idempotency-Key`: the first one's answer is kept and given again.

use campanile_model::{Code, Idempotency, IdempotencyRow, Reply, bound, limits, planted, sometimes};

use super::context::{Answer, Apply, NAMESPACE, reject};
use crate::{keys, tables};

impl Apply<'_> {
    /// The answer given to this key before, if it is remembered. Refuses the key if it cannot be used.
    pub fn recall(&self, idempotency: Option<&Idempotency>) -> Answer<Option<Reply>> {
        let Some(Idempotency { key, fingerprint }) = idempotency else { return Ok(None) };
        let most = bound!(IdempotencyKeys, limits::IDEMPOTENCY_KEYS);
        match tables::idempotency(&self.read(), &keys::named(NAMESPACE, key))? {
            Some(row) if row.expires_at > self.time && !planted!(IdempotencyForgotten) => {
                if row.fingerprint != *fingerprint {
                    return reject(
                        Code::IdempotencyMismatch,
                        format!("idempotency key {key:?} was used for another request"),
                    );
                }
                sometimes!(AnswerRecalled);
                Ok(Some(row.reply))
            }
            // The expired row's place is taken.
            Some(_) => Ok(None),
            None if self.cached.globals.counts.idempotency_keys >= most => {
                sometimes!(KeysFull);
                reject(Code::QuotaExceeded, format!("{most} idempotency keys are remembered already"))
            }
            None => Ok(None),
        }
    }

    /// Keeps the answer of an accepted request.
    pub fn remember(&mut self, idempotency: Option<&Idempotency>, reply: &Reply) -> Answer<()> {
        let Some(Idempotency { key, fingerprint }) = idempotency else { return Ok(()) };
        let named = keys::named(NAMESPACE, key);
        match tables::idempotency(&self.read(), &named)? {
            Some(expired) => self.overlay.delete(keys::IDEM_EXPIRY, keys::key_expiry(expired.expires_at, &named)),
            None => self.cached.globals.counts.idempotency_keys += 1,
        }
        let expires_at = self.time.saturating_add(bound!(IdempotencyTtl, limits::IDEMPOTENCY_TTL));
        self.overlay.put(keys::IDEM_EXPIRY, keys::key_expiry(expires_at, &named), Vec::new());
        let row = IdempotencyRow { fingerprint: *fingerprint, expires_at, reply: reply.clone() };
        tables::put_idempotency(self.overlay, named, &row);
        Ok(())
    }
}
