// Package access knows who may use a hub: users with their roles, sessions, and the audit log.
//
// What always holds:
//
//   - A password is made here, told once, and kept only as an argon2id hash. At most [maxHashes] hashes
//     are computed at once, because each takes 64 MiB.
//   - A session token is 256 random bits, told once, and kept only as its SHA-256. A session ends at
//     logout, [SessionIdle] after its last use, [SessionMax] after its login, and when its user is changed
//     or removed.
//   - There is always at least one administrator.
//   - Everything here is durable when the call returns: a crash loses no user, session or audit entry.
//     The audit log keeps the newest [MaxAudit] entries, and nothing changes an entry.
//   - Failed logins are limited by address and by user name, whether or not that user exists.
package access
