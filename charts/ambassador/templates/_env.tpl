{{- /* The settings of operator/settings.ts. What is empty has that file's default. */ -}}
{{- define "ambassador.env" -}}
{{- $proxy := .Values.proxy }}
{{- $requests := $proxy.resources.requests | default dict }}
{{- $limits := $proxy.resources.limits | default dict }}
{{- range $name, $value := dict
  "AMBASSADOR_REPLICAS" .Values.operator.replicas
  "AMBASSADOR_LOG_LEVEL" .Values.operator.logLevel
  "AMBASSADOR_SECRET_CHECKS" (join "," .Values.operator.secretChecks)
  "AMBASSADOR_EXCLUDED_NAMESPACES" (join "," .Values.operator.excludedNamespaces)
  "AMBASSADOR_PROXY_IMAGE" (include "ambassador.image" (list $proxy.image $))
  "AMBASSADOR_PROXY_IMAGE_PULL_POLICY" $proxy.image.pullPolicy
  "AMBASSADOR_PROXY_CPU_REQUEST" $requests.cpu
  "AMBASSADOR_PROXY_CPU_LIMIT" $limits.cpu
  "AMBASSADOR_PROXY_MEMORY_REQUEST" $requests.memory
  "AMBASSADOR_PROXY_MEMORY_LIMIT" $limits.memory
  "AMBASSADOR_PROXY_GUARANTEED_CPU" $proxy.resources.guaranteedCpu
  "AMBASSADOR_PROXY_RUN_AS_USER" (ternary "none" ($proxy.runAsUser | int64) (kindIs "invalid" $proxy.runAsUser))
  "AMBASSADOR_PROXY_NATIVE_SIDECAR" (toString $proxy.nativeSidecar)
  "AMBASSADOR_PROXY_LOG_LEVEL" $proxy.logLevel
  "AMBASSADOR_PROXY_READINESS" $proxy.readiness
  "AMBASSADOR_PROXY_DRAIN_SECONDS" $proxy.drainSeconds
}}
{{- if not (kindIs "invalid" $value) }}
{{- if ne (toString $value) "" }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
