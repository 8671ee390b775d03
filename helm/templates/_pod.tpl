{{/* The Pod template of Job and CronJob. Takes root and configName. */}}
{{- define "finetune.podTemplate" -}}
{{- $ := .root -}}
{{- $gpus := include "finetune.gpus" $ | int -}}
metadata:
  labels:
    {{- include "finetune.selectorLabels" $ | nindent 4 }}
    app.kubernetes.io/component: job
    {{- with include "finetune.strings" $.Values.podLabels | trim }}{{ nindent 4 . }}{{ end }}
  annotations:
    kubectl.kubernetes.io/default-container: finetune
    {{- with include "finetune.strings" $.Values.podAnnotations | trim }}{{ nindent 4 . }}{{ end }}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: {{ include "finetune.gracePeriod" $ }}
  serviceAccountName: {{ include "finetune.serviceAccountName" $ }}
  # Only Events need the token.
  automountServiceAccountToken: {{ ternary true false (eq (include "finetune.events" $) "true") }}
  # A Service called finetune would add variables with the settings' prefix.
  enableServiceLinks: false
  securityContext:
    {{- include "finetune.podSecurityContext" $ | nindent 4 }}
  {{- with $.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $.Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- $selector := dict }}
  {{- if and $gpus ($.Values.gpu).accelerator }}{{ $_ := set $selector "cloud.google.com/gke-accelerator" $.Values.gpu.accelerator }}{{ end }}
  {{- if $.Values.spot }}{{ $_ := set $selector "cloud.google.com/gke-spot" "true" }}{{ end }}
  {{- with include "finetune.strings" (merge (deepCopy ($.Values.nodeSelector | default dict)) $selector) | trim }}
  nodeSelector: {{- nindent 4 . }}
  {{- end }}
  {{- if or $gpus $.Values.spot $.Values.tolerations }}
  tolerations:
    {{- if $gpus }}
    - key: nvidia.com/gpu
      operator: Exists
      effect: NoSchedule
    {{- end }}
    {{- if $.Values.spot }}
    - key: cloud.google.com/gke-spot
      operator: Equal
      value: "true"
      effect: NoSchedule
    {{- end }}
    {{- with $.Values.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with $.Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.extraInitContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: finetune
      image: {{ include "finetune.image" $ | quote }}
      {{- with include "finetune.imagePullPolicy" $ | trim }}{{ nindent 6 . }}{{ end }}
      args: [{{ include "finetune.command" $ }}, --config, /etc/finetune/config.yaml{{ range $.Values.arguments }}, {{ . | quote }}{{ end }}]
      env:
        - name: FINETUNE_RUN__JOB_UID
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/controller-uid']
        - name: FINETUNE_RUN__JOB_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/job-name']
        - name: FINETUNE_RUN__NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: FINETUNE_RUN__NODE
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        - name: FINETUNE_RUN__IMAGE
          value: {{ include "finetune.image" $ | quote }}
        {{- if and (eq (include "finetune.cacheType" $) "emptyDir") (not (($.Values.config).cache).dir) }}
        - name: FINETUNE_RUN__EPHEMERAL_BYTES
          valueFrom:
            resourceFieldRef:
              resource: limits.ephemeral-storage
        {{- end }}
        {{- if include "finetune.events" $ }}
        - name: FINETUNE_EVENTS__POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: FINETUNE_EVENTS__POD_UID
          valueFrom:
            fieldRef:
              fieldPath: metadata.uid
        {{- end }}
        {{- with include "finetune.env" $ | trim }}{{ nindent 8 . }}{{ end }}
      {{- with include "finetune.resources" (dict "resources" $.Values.resources "gpus" $gpus "gpuResource" (($.Values.gpu).resource | default "nvidia.com/gpu")) }}
      resources: {{- nindent 8 . }}
      {{- end }}
      securityContext:
        {{- include "finetune.securityContext" $ | nindent 8 }}
      terminationMessagePath: /dev/termination-log
      # If it is empty, as after an out-of-memory kill, Kubernetes shows the end of the log.
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        {{- include "finetune.volumeMounts" $ | nindent 8 }}
        - name: cache
          mountPath: /cache
        {{- if gt $gpus 1 }}
        - name: shm
          mountPath: /dev/shm
        {{- end }}
  volumes:
    {{- include "finetune.volumes" . | nindent 4 }}
    - name: cache
      {{- include "finetune.cacheVolume" $ | nindent 6 }}
    {{- if gt $gpus 1 }}
    # NCCL moves data between GPUs through shared memory, and a container's default is 64 MiB.
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: 1Gi
    {{- end }}
{{- end }}

{{- define "finetune.cacheVolume" -}}
{{- $cache := .Values.cache | default dict -}}
{{- $type := include "finetune.cacheType" . -}}
{{- if eq $type "existingClaim" -}}
persistentVolumeClaim:
  claimName: {{ $cache.existingClaim }}
{{- else if eq $type "ephemeral" -}}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $cache.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ include "finetune.text" $cache.sizeLimit }}
{{- else if $cache.sizeLimit -}}
emptyDir:
  sizeLimit: {{ include "finetune.text" $cache.sizeLimit }}
{{- else -}}
emptyDir: {}
{{- end -}}
{{- end }}

{{/* The Job's own spec. spec.suspend is never here: it belongs to a queue, and two writers of one field conflict. */}}
{{- define "finetune.jobSpec" -}}
backoffLimit: {{ ternary 3 (int (.Values.job).backoffLimit) (kindIs "invalid" (.Values.job).backoffLimit) }}
{{- with (.Values.job).activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- if not (kindIs "invalid" (.Values.job).ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int .Values.job.ttlSecondsAfterFinished }}
{{- end }}
# The only value accepted with podFailurePolicy: the new Pod is created after the old one has ended, not while it ends.
podReplacementPolicy: Failed
podFailurePolicy:
  {{- include "finetune.podFailurePolicy" . | nindent 2 }}
template:
  {{- include "finetune.podTemplate" (dict "root" . "configName" (include "finetune.configName" .)) | nindent 2 }}
{{- end }}

{{- define "finetune.jobLabels" -}}
{{- include "finetune.labels" . }}
{{- with (.Values.kueue).queueName }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- end }}
{{- include "finetune.strings" (.Values.job).labels }}
{{- end }}
