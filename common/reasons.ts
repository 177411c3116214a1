/** The reason codes of answers that the sidecar makes itself: the same word in x-ambassador-reason, Proxy-Status, log and metric. */

/**
 * Reason code -> HTTP status of the answer (0: the client is gone and gets none), the RFC 9209 section 2.3 proxy error
 * type, and the sentence that a person reads.
 */
export const REASONS = {
  dns_failed: { status: 502, proxyError: 'dns_error', text: 'the name of the upstream does not resolve' },
  connect_refused: { status: 502, proxyError: 'connection_refused', text: 'the upstream refuses connections' },
  connect_timeout: {
    status: 504,
    proxyError: 'connection_timeout',
    text: 'the upstream does not accept a connection in time',
  },
  tls_verify_failed: {
    status: 502,
    proxyError: 'tls_certificate_error',
    text: 'the certificate of the upstream is not trusted',
  },
  auth_unavailable: {
    status: 503,
    proxyError: 'proxy_configuration_error',
    text: 'the credential for the upstream is not available',
  },
  circuit_open: { status: 503, proxyError: 'destination_unavailable', text: 'the circuit breaker is open' },
  queue_full: { status: 503, proxyError: 'connection_limit_reached', text: 'too many requests wait for the upstream' },
  rate_limited: { status: 429, proxyError: 'http_request_denied', text: 'the rate limit is reached' },
  try_timeout: { status: 504, proxyError: 'http_response_timeout', text: 'the upstream does not answer in time' },
  deadline: { status: 504, proxyError: 'http_response_timeout', text: 'the request took longer than its deadline' },
  upstream_reset: {
    status: 502,
    proxyError: 'connection_terminated',
    text: 'the upstream closed the connection before it answered',
  },
  upstream_truncated: {
    status: 502,
    proxyError: 'http_response_incomplete',
    text: 'the upstream ended in the middle of its answer',
  },
  body_too_large_to_retry: {
    status: 502,
    proxyError: 'connection_terminated',
    text: 'the attempt failed and the body is too large to be sent again',
  },
  budget_exhausted: { status: 503, proxyError: 'destination_unavailable', text: 'the retry budget is used up' },
  client_gone: { status: 0, proxyError: 'connection_terminated', text: 'the client closed the connection' },
  overloaded: { status: 503, proxyError: 'proxy_internal_response', text: 'the sidecar is overloaded' },
  draining: { status: 503, proxyError: 'proxy_internal_response', text: 'the sidecar is shutting down' },
  no_route: { status: 404, proxyError: 'destination_not_found', text: 'no route matches' },
  no_healthy_endpoint: {
    status: 503,
    proxyError: 'destination_unavailable',
    text: 'no endpoint of the upstream is available',
  },
  egress_denied: {
    status: 502,
    proxyError: 'destination_ip_prohibited',
    text: 'the upstream is not a host that may be dialled',
  },
  bad_request: { status: 400, proxyError: 'http_request_error', text: 'the request is not well-formed HTTP/1.1' },
} as const satisfies Record<string, { status: number; proxyError: string; text: string }>

export type Reason = keyof typeof REASONS
