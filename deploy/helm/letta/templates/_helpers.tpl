{{/* Name of a service's objects: underscores are no part of a DNS name. */}}
{{- define "letta.name" -}}
{{ .release }}-{{ .service | replace "_" "-" }}
{{- end }}

{{- define "letta.labels" -}}
app.kubernetes.io/name: letta
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service | replace "_" "-" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "letta.selector" -}}
app.kubernetes.io/name: letta
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service | replace "_" "-" }}
{{- end }}

{{- define "letta.image" -}}
{{ .root.Values.image.registry }}letta-{{ .service | replace "_" "-" }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Variables of every service. Headless services resolve to every replica, and callers take turns. */}}
{{- define "letta.env" -}}
{{- $root := .root }}
- name: LETTA_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ $root.Values.secretName }}, key: database-url}}
- name: LETTA_CLUSTER_SECRET
  valueFrom: {secretKeyRef: {name: {{ $root.Values.secretName }}, key: cluster-secret}}
- name: LETTA_ENCRYPTION_KEY
  valueFrom: {secretKeyRef: {name: {{ $root.Values.secretName }}, key: encryption-key}}
- name: OPENAI_API_KEY
  valueFrom: {secretKeyRef: {name: {{ $root.Values.secretName }}, key: openai-api-key, optional: true}}
- name: ANTHROPIC_API_KEY
  valueFrom: {secretKeyRef: {name: {{ $root.Values.secretName }}, key: anthropic-api-key, optional: true}}
- name: LETTA_HOME
  value: /home/letta/.letta
- name: LETTA_METRICS_BIND
  value: "0.0.0.0:{{ $root.Values.metrics.port }}"
{{- range $peer := list "auth" "memory" "llm_gateway" "tools" "agent" }}
- name: LETTA_{{ upper $peer }}_ADDRESS
  value: "dns:///{{ include "letta.name" (dict "release" $root.Release.Name "service" $peer) }}:50051"
{{- end }}
{{- if $root.Values.tlsSecretName }}
- {name: LETTA_TLS_CERTIFICATE, value: /etc/letta/tls/tls.crt}
- {name: LETTA_TLS_KEY, value: /etc/letta/tls/tls.key}
- {name: LETTA_TLS_CA, value: /etc/letta/tls/ca.crt}
{{- end }}
{{- range $name, $value := merge (dict) .own $root.Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
