/** When a token that is a JWT (RFC 7519) expires. Nothing is verified: that is the affair of whoever takes it. */

/** Milliseconds since 1970 of the claim `exp`; null for what is not a JWT or does not say. */
export function jwtExpiry(token: string): number | null {
  const [, payload, signature] = token.split('.', 3)
  if (payload === undefined || signature === undefined) return null
  try {
    const { exp } = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as { exp?: unknown }
    return typeof exp === 'number' && Number.isFinite(exp) ? exp * 1000 : null
  } catch {
    return null
  }
}
