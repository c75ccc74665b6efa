{{- define "rotad.labels" -}}
{{ include "rotad.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The name is always `rotad`: the alerts rely on it. */}}
{{- define "rotad.selector" -}}
app.kubernetes.io/name: rotad
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rotad.serviceAccount" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "rotad.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}
