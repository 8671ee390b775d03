{{/* The Pod of cronjob.plan: `finetune plan` with the settings of the job, on a node without GPU, and an account of its own. */}}
{{- define "finetune.planTemplate" -}}
{{- $cronjob := .Values.cronjob -}}
metadata:
  labels:
    {{- include "finetune.podLabels" (dict "root" . "component" "plan") | nindent 4 }}
  annotations:
    {{- include "finetune.podAnnotations" . | nindent 4 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "finetune.planName" . | quote }}
  # To create the Job.
  automountServiceAccountToken: true
  enableServiceLinks: false
  securityContext:
    {{- include "finetune.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- /* nodeSelector, affinity, tolerations, runtimeClassName and priorityClassName are for the Pod with the GPU: a node with a
  GPU could be started for them. */}}
  {{- with include "finetune.strings" $cronjob.planNodeSelector | trim }}
  nodeSelector: {{- nindent 4 . }}
  {{- end }}
  {{- with $cronjob.planTolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $network := pick (.Values.podSpec | default dict) "dnsConfig" "dnsPolicy" "hostAliases" | deepCopy }}
  {{- $_ := include "finetune.dropNulls" $network }}
  {{- with $network }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  containers:
    # The name of the job's container, so that its exit codes mean the same, and `finetune watch` reads its log.
    - name: finetune
      image: {{ $cronjob.planImage | default (include "finetune.image" .) | quote }}
      {{- with include "finetune.imagePullPolicy" . | trim }}{{ nindent 6 . }}{{ end }}
      args: [plan, --config, /etc/finetune/config.yaml, --create-job, {{ include "finetune.fullname" . | quote }}]
      {{- with include "finetune.env" . | trim }}
      env:
        {{- nindent 8 . }}
      {{- end }}
      {{- with .Values.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "finetune.resources" (dict "resources" $cronjob.planResources "gpus" 0) }}
      resources: {{- nindent 8 . }}
      {{- end }}
      securityContext:
        {{- include "finetune.securityContext" . | nindent 8 }}
      terminationMessagePath: /dev/termination-log
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        {{- include "finetune.volumeMounts" . | nindent 8 }}
  volumes:
    {{- include "finetune.volumes" . | nindent 4 }}
{{- end }}
