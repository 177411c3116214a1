/** A URL of HTTP, as fields name one. */

const BYTE = '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const URL_HOST = `(([a-zA-Z0-9_-]+[.])*[a-zA-Z][a-zA-Z0-9_-]*|(${BYTE}[.]){3}${BYTE})`
const URL_PORT = '(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?'
/** `http://host:port/path` without user, fragment and address of IPv6. */
export const URL_PATTERN = `^https?://${URL_HOST}${URL_PORT}(/[!$-~]*)?$`
export const URL_REMEDY = 'use https://host/path'
