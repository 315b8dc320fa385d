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

{{/* Variables of the tools service where calls run in pods of their own. */}}
{{- define "letta.toolPods" -}}
{{- $pods := .Values.toolPods -}}
- name: LETTA_TOOLS_SANDBOX_PROVIDER
  value: kubernetes
- name: LETTA_TOOLS_KUBERNETES_NAMESPACE
  value: {{ include "letta.toolPodsNamespace" . | quote }}
- name: LETTA_TOOLS_KUBERNETES_RESOURCE
  value: {{ $pods.resource | quote }}
- name: LETTA_TOOLS_KUBERNETES_IMAGE
  value: {{ $pods.image | quote }}
- name: LETTA_TOOLS_KUBERNETES_RUNTIME_CLASS
  value: {{ $pods.runtimeClassName | quote }}
- name: LETTA_TOOLS_MACHINE_IDLE_SECONDS
  value: {{ $pods.idleSeconds | quote }}
{{- if $pods.warm }}
- name: LETTA_TOOLS_KUBERNETES_WARM_POOL
  value: {{ include "letta.name" (dict "release" .Release.Name "service" "tool-calls") }}
{{- end }}
{{- end }}

{{/* Who may make pods in a namespace can read its secrets, so that of the release is no place for them. */}}
{{- define "letta.toolPodsNamespace" -}}
{{- $namespace := required "toolPods.namespace must name a namespace for the pods of calls alone" .Values.toolPods.namespace -}}
{{- if eq $namespace .Release.Namespace }}{{ fail "toolPods.namespace must not be the namespace of the release" }}{{ end -}}
{{ $namespace }}
{{- end }}
