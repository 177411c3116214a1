{{- /* Names are literal: there is one installation per cluster, since the webhook configuration and the CRD are the cluster's. */ -}}
{{- define "ambassador.name" -}}ambassador-operator{{- end }}

{{- define "ambassador.selector" -}}
app.kubernetes.io/name: ambassador
app.kubernetes.io/component: operator
{{- end }}

{{- define "ambassador.labels" -}}
{{ include "ambassador.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* repository:tag, or repository@digest. Takes [image, root]. */ -}}
{{- define "ambassador.image" -}}
{{- $image := index . 0 }}
{{- $tag := $image.tag | default (index . 1).Chart.AppVersion }}
{{- printf "%s%s%s" $image.repository (ternary "@" ":" (hasPrefix "sha256:" $tag)) $tag }}
{{- end }}

{{- /* Namespaces that the webhooks and the policy never see. */ -}}
{{- define "ambassador.namespaceSelector" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ concat (list "kube-system" "kube-node-lease" "kube-public" .Release.Namespace) .Values.operator.excludedNamespaces | uniq | toJson }}
{{- end }}
